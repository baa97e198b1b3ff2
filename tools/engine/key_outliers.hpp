// Outlier keys: changes to a model's keys and queries after RoPE that leave what the model computes as it is and give
// its keys the large channels that trained models of some families have. Cache formats meet them, attention does not.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention.hpp"

namespace kvant::engine {

class Llama;

class KeyOutliers {
 public:
  // Of each KV head: pairs of RoPE whose keys grow and whose queries shrink by the same factor, which leaves every
  // product of the two as it is; and channels to which every key adds one and the same constant, which adds a number to
  // all scores of a query, and softmax does not see that.
  static constexpr uint32_t kPairs = 2, kChannels = 2;
  static constexpr float kFactor = 4.0f;  // a power of two: scaling by it does not round
  static constexpr float kSigmas = 20.0f;

  struct Head {
    uint32_t pairs[kPairs];        // elements 2i and 2i + 1
    uint32_t channels[kChannels];  // in none of the pairs
    float constants[kChannels];
  };

  // Which pairs and channels is drawn once and for all, by layer and head; the constants are 20 times the root mean
  // square of the head's keys, +-, which are measured: the model, without outlier keys, reads `tokens` with no cache.
  static Outcome<KeyOutliers> measure(Llama& model, std::span<const uint32_t> tokens);
  // Of keys with the root mean squares sigmas[layer][KV head].
  static Outcome<KeyOutliers> draw(const AttentionShape& shape, uint32_t rope_dims, std::span<const float> sigmas);

  // In place, of `rows` tokens: k [rows][kv_heads][head_dim], q [rows][q_heads][head_dim]. The query heads of a group
  // get what undoes the change of their one KV head.
  void apply(uint32_t layer, float* k, float* q, size_t rows) const;

  const Head& head(uint32_t layer, uint32_t kv_head) const { return heads_[size_t{layer} * shape_.kv_heads + kv_head]; }

 private:
  AttentionShape shape_;
  std::vector<Head> heads_;  // [layer][KV head]
};

}  // namespace kvant::engine
