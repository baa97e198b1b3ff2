// Attention through the plugin: each slot is a sequence of one kvant cache, each batch a step (plan, run per layer,
// commit).
#pragma once

#include <memory>
#include <vector>

#include "../library.hpp"
#include "attention.hpp"

namespace kvant::engine {

// Wall time spent inside the plugin.
struct AttentionTimes {
  double plan_seconds = 0;  // step_plan and step_commit
  double run_seconds = 0;   // step_run
  uint64_t steps = 0;
};

class CacheAttention : public Attention {
 public:
  static Outcome<std::unique_ptr<CacheAttention>> create(std::shared_ptr<tools::Device> device,
                                                         const AttentionShape& shape, uint32_t format_k,
                                                         uint32_t format_v, uint64_t capacity_tokens, uint32_t slots);
  ~CacheAttention() override;

  Outcome<void> begin(std::span<const BatchEntry> entries) override;
  Outcome<void> run(uint32_t layer, const float* k, const float* v, const float* q, float* out) override;
  Outcome<void> commit() override;
  void abort() override;

  // Forgets the tokens of every slot from `tokens` on.
  Outcome<void> truncate(uint64_t tokens);

  tools::Cache& cache() { return *cache_; }
  kvant_sequence sequence(uint32_t slot) const { return sequences_[slot]; }
  AttentionTimes take_times();

 private:
  explicit CacheAttention(const AttentionShape& shape) : shape_(shape) {}

  AttentionShape shape_;
  std::shared_ptr<tools::Cache> cache_;
  std::vector<kvant_sequence> sequences_;
  std::vector<uint32_t> lengths_;
  std::vector<BatchEntry> entries_;
  kvant_step* step_ = nullptr;
  uint64_t tokens_ = 0;  // of the open step
  AttentionTimes times_;
};

}  // namespace kvant::engine
