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
  // Of any shape: one with a prefix cache, for open().
  static Outcome<std::unique_ptr<CacheAttention>> create(std::shared_ptr<tools::Device> device,
                                                         const AttentionShape& shape, const tools::CacheShape& cache,
                                                         uint32_t slots);
  ~CacheAttention() override;

  Outcome<void> begin(std::span<const BatchEntry> entries) override;
  Outcome<void> run(uint32_t layer, const float* k, const float* v, const float* q, float* out) override;
  Outcome<void> commit() override;
  void abort() override;

  // Forgets the tokens of every slot from `tokens` on.
  Outcome<void> truncate(uint64_t tokens);

  // Ends the slot's sequence; the next one begins with what the prefix cache holds of the prompt, its last token left
  // out: returns how many tokens are there. Without a prefix cache the sequence begins empty.
  Outcome<uint32_t> open(uint32_t slot, std::span<const uint32_t> prompt);

  // From now on each query's result is to the bit what it would be alone in its step (KVANT_RUN_INVARIANT), so that a
  // text does not depend on whether its tokens were fed one by one or verified as a chain.
  void make_invariant() { run_flags_ |= KVANT_RUN_INVARIANT; }

  // From now on queries count what they attend to (KVANT_RUN_MASS), or no longer.
  void count_mass(bool on) { run_flags_ = on ? run_flags_ | KVANT_RUN_MASS : run_flags_ & ~KVANT_RUN_MASS; }
  // Leaves `keep` tokens of a longer sequence: the first `sinks`, the last `recent` (0: the library's choice of both)
  // and the heaviest others. Batches must then bring their positions: the sequence is shorter than what it has seen.
  Outcome<void> prune(uint32_t slot, uint64_t tokens, uint32_t sinks, uint32_t recent);
  // The same without looking at masses: the first `sinks` and the last ones.
  Outcome<void> keep_ends(uint32_t slot, uint64_t tokens, uint32_t sinks);
  // After a memory limit, which may have pruned.
  Outcome<void> refresh_lengths();

  // For trees of drafted tokens, with one slot: from record() on a copy of the keys and values that come in is kept,
  // and keep() leaves of the tokens since then those at the ascending `places` of the sequence, next to each other in
  // that order. Those that stand right already stay; the others go in once more from the copy, without the model.
  Outcome<void> record();
  Outcome<void> keep(std::span<const uint32_t> places);

  tools::Cache& cache() { return *cache_; }
  kvant_sequence sequence(uint32_t slot) const { return sequences_[slot]; }
  uint32_t length(uint32_t slot) const { return lengths_[slot]; }
  AttentionTimes take_times();

 private:
  explicit CacheAttention(const AttentionShape& shape) : shape_(shape) {}
  struct Recorded {
    std::vector<float> k, v;  // [tokens since recorded_begin_][kv_heads][head_dim]
  };
  Outcome<void> plan(std::span<const kvant_step_entry> entries);
  // q and out are null in a step without queries.
  Outcome<void> run_step(uint32_t layer, const float* k, const float* v, const float* q, float* out);
  Outcome<void> append_recorded(std::span<const uint32_t> places);

  AttentionShape shape_;
  std::shared_ptr<tools::Cache> cache_;
  std::vector<kvant_sequence> sequences_;
  std::vector<uint32_t> lengths_;
  std::vector<BatchEntry> entries_;
  kvant_step* step_ = nullptr;
  uint32_t run_flags_ = 0;
  uint64_t tokens_ = 0;  // of the open step
  bool recording_ = false;
  uint32_t recorded_begin_ = 0;
  std::vector<Recorded> recorded_;  // of each layer
  AttentionTimes times_;
};

}  // namespace kvant::engine
