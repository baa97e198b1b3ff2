// A Llama decoder on the CPU: everything but attention, which the caller's Attention does.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention.hpp"
#include "gguf.hpp"
#include "rope.hpp"

namespace kvant::engine {

struct LlamaConfig {
  uint32_t layers = 0;
  uint32_t width = 0;  // elements of the residual stream
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t ffn = 0;
  uint32_t context = 0;  // most tokens of a sequence
  uint32_t vocabulary = 0;
  uint32_t rope_dims = 0;
  double rope_base = 0;
  float epsilon = 0;

  AttentionShape attention() const { return {layers, q_heads, kv_heads, head_dim}; }
  // What one token's keys and values take over all layers, at `bits` a number.
  uint64_t kv_bytes_per_token(uint32_t bits) const { return uint64_t{2} * layers * kv_heads * head_dim * bits / 8; }
};

struct Batch {
  std::vector<BatchEntry> entries;
  std::vector<uint32_t> tokens;      // of all entries, one after another
  std::vector<uint32_t> logit_rows;  // which of them need logits
  std::vector<uint32_t> positions;   // for RoPE, of each token; empty: as the entries count
  uint32_t layers = 0;               // only so many of the first layers, then norm and output; 0: all
};

class KeyOutliers;

class Llama {
 public:
  // Checks every metadata value and tensor shape that it needs; the failure names the one that is wrong.
  static Outcome<Llama> load(const GgufFile& file);

  const LlamaConfig& config() const { return config_; }
  uint64_t parameters() const { return parameters_; }

  // From now on keys and queries are changed so where they leave RoPE, before attention sees them; null: as trained.
  // Tokens that a cache already holds must have been fed the same way.
  void set_key_outliers(std::shared_ptr<const KeyOutliers> outliers) { key_outliers_ = std::move(outliers); }
  const KeyOutliers* key_outliers() const { return key_outliers_.get(); }

  // logits [batch.logit_rows.size()][vocabulary]. On failure the attention's step is aborted.
  Outcome<void> forward(const Batch& batch, Attention& attention, std::vector<float>& logits);

 private:
  struct Layer {
    std::vector<float> attention_norm, wq, wk, wv, wo, ffn_norm, gate, up, down;
  };
  struct Activations;  // rows of one batch

  Llama(const LlamaConfig& config) : config_(config), rope_(config.rope_dims, config.rope_base, 0) {}
  Outcome<void> check(const Batch& batch) const;
  Outcome<void> block(uint32_t index, const Batch& batch, Attention& attention, Activations& a);

  LlamaConfig config_;
  Rope rope_;
  std::vector<float> embedding_, output_norm_, output_;
  std::vector<Layer> layers_;
  std::shared_ptr<const KeyOutliers> key_outliers_;
  uint64_t parameters_ = 0;
};

}  // namespace kvant::engine
