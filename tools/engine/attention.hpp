// What the model asks of attention: a batch of fresh tokens goes in layer by layer, each query sees its sequence's
// past.
#pragma once

#include <cstdint>
#include <span>

#include "../outcome.hpp"

namespace kvant::engine {

using tools::Failure;
using tools::Outcome;

// `count` fresh tokens of one sequence, the first at `position`.
struct BatchEntry {
  uint32_t slot = 0;  // which sequence: 0 .. slots - 1
  uint32_t position = 0;
  uint32_t count = 0;
  // `count` rows of equally many words, or empty: bit i of a token's row says whether it sees the token that stands at
  // mask_begin + i in the sequence. Every token sees those before mask_begin. Read by begin() only.
  std::span<const uint32_t> mask = {};
  uint32_t mask_begin = 0;
  // Their ids, or empty: unknown. What a prefix cache finds again. Read by begin() only.
  std::span<const uint32_t> tokens = {};
};

struct AttentionShape {
  uint32_t layers = 0;
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
};

class Attention {
 public:
  virtual ~Attention() = default;

  virtual Outcome<void> begin(std::span<const BatchEntry> entries) = 0;
  // k, v [tokens][kv_heads][head_dim]; q, out [tokens][q_heads][head_dim]; the tokens of all entries one after another.
  virtual Outcome<void> run(uint32_t layer, const float* k, const float* v, const float* q, float* out) = 0;
  virtual Outcome<void> commit() = 0;
  // Ends a batch that failed half-way.
  virtual void abort() = 0;
};

}  // namespace kvant::engine
