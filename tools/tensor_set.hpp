// Keys, values and queries that go through a cache, and what comes out beside what exact arithmetic says.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format_pair.hpp"
#include "library.hpp"

namespace kvant::tools {

// Of a sequence of `tokens`; the queries stand at its last tokens and see what is before them.
struct TensorSet {
  std::string name;
  uint32_t layers = 0, tokens = 0, kv_heads = 0, head_dim = 0, queries = 0, q_heads = 0;
  std::vector<float> k, v;  // [layer][token][KV head][dim]
  std::vector<float> q;     // [layer][query][query head][dim], not scaled yet

  size_t kv_size() const { return size_t{tokens} * kv_heads * head_dim; }  // of one layer
  size_t q_size() const { return size_t{queries} * q_heads * head_dim; }
  size_t rows() const { return size_t{layers} * queries * q_heads; }  // of attention
  uint32_t visible(uint32_t query) const { return tokens - queries + query + 1; }
};

// softmax(q k / sqrt(d), causal) of one row of attention, in double: what each token weighs, 0 after the last visible.
void attention_weights(const TensorSet& set, const std::vector<float>& k, size_t row, std::span<double> weights);

// Exact attention, [layer][query][query head][dim].
std::vector<float> exact_attention(const TensorSet& set);

// A cache that holds a set as one sequence.
class HeldSet {
 public:
  static Outcome<HeldSet> fill(const std::shared_ptr<Device>& device, const FormatPair& pair, const TensorSet& set);

  // The cache's attention over what it holds. `mask`: rows of mask_words(set) words, one a query, of the tokens that it
  // may see; empty: all before it. `lse`: log-sum-exps of the rows, or null.
  Outcome<std::vector<float>> attend(const TensorSet& set, std::span<const uint32_t> mask = {},
                                     std::vector<float>* lse = nullptr);
  static uint32_t mask_words(const TensorSet& set) { return (set.tokens + 31) / 32; }
  // What the cache holds of KVANT_SIDE_K or _V, as floats.
  Outcome<std::vector<float>> read(const TensorSet& set, uint32_t side);
  // Of its pages.
  Outcome<uint64_t> used_bytes();

 private:
  std::shared_ptr<Cache> cache_;
  kvant_sequence sequence_ = 0;
};

}  // namespace kvant::tools
