// Attention without a cache: every batch brings all tokens of its sequences, and nothing is kept.
#pragma once

#include <vector>

#include "attention.hpp"

namespace kvant::engine {

class PlainAttention : public Attention {
 public:
  explicit PlainAttention(const AttentionShape& shape) : shape_(shape) {}

  Outcome<void> begin(std::span<const BatchEntry> entries) override;
  Outcome<void> run(uint32_t layer, const float* k, const float* v, const float* q, float* out) override;
  Outcome<void> commit() override { return {}; }
  void abort() override {}

 private:
  AttentionShape shape_;
  std::vector<BatchEntry> entries_;
};

}  // namespace kvant::engine
