// The calls of a step, timed.
#include "cache_attention.hpp"

#include <algorithm>

#include "../clock.hpp"

namespace kvant::engine {

Outcome<std::unique_ptr<CacheAttention>> CacheAttention::create(std::shared_ptr<tools::Device> device,
                                                                const AttentionShape& shape, uint32_t format_k,
                                                                uint32_t format_v, uint64_t capacity_tokens,
                                                                uint32_t slots) {
  std::unique_ptr<CacheAttention> attention(new CacheAttention(shape));
  auto cache = tools::Cache::create(
      std::move(device), {shape.layers, shape.kv_heads, shape.head_dim, format_k, format_v, capacity_tokens});
  if (!cache.ok()) {
    return cache.failure();
  }
  attention->cache_ = std::move(*cache);
  for (uint32_t slot = 0; slot < slots; ++slot) {
    const auto sequence = attention->cache_->create_sequence();
    if (!sequence.ok()) {
      return sequence.failure();
    }
    attention->sequences_.push_back(*sequence);
    attention->lengths_.push_back(0);
  }
  return attention;
}

CacheAttention::~CacheAttention() { abort(); }

Outcome<void> CacheAttention::begin(std::span<const BatchEntry> entries) {
  std::vector<kvant_step_entry> step_entries;
  entries_.assign(entries.begin(), entries.end());
  tokens_ = 0;
  for (const BatchEntry& entry : entries_) {
    if (entry.slot >= sequences_.size() || entry.position != lengths_[entry.slot]) {
      return Failure{"the batch puts tokens at position " + std::to_string(entry.position) + " of slot " +
                     std::to_string(entry.slot) + ", which is not the end of that sequence"};
    }
    kvant_step_entry step_entry{};
    step_entry.struct_size = sizeof(step_entry);
    step_entry.sequence = sequences_[entry.slot];
    step_entry.append = entry.count;
    step_entry.queries = entry.count;
    step_entries.push_back(step_entry);
    tokens_ += entry.count;
  }
  kvant_step_args args{};
  args.struct_size = sizeof(args);
  args.entry_count = static_cast<uint32_t>(step_entries.size());
  args.entries = step_entries.data();
  const tools::Stopwatch watch;
  const auto planned = cache_->check(cache_->api().step_plan(cache_->handle(), &args, &step_));
  times_.plan_seconds += watch.seconds();
  return planned;
}

Outcome<void> CacheAttention::run(uint32_t layer, const float* k, const float* v, const float* q, float* out) {
  const uint64_t kv_elements = tokens_ * shape_.kv_heads * shape_.head_dim;
  const uint64_t q_elements = tokens_ * shape_.q_heads * shape_.head_dim;
  const kvant_tensor k_tensor = tools::float_tensor(k, kv_elements);
  const kvant_tensor v_tensor = tools::float_tensor(v, kv_elements);
  const kvant_tensor q_tensor = tools::float_tensor(q, q_elements);
  const kvant_tensor out_tensor = tools::float_tensor(out, q_elements);
  kvant_run_args args{};
  args.struct_size = sizeof(args);
  args.k = &k_tensor;
  args.v = &v_tensor;
  args.q = &q_tensor;
  args.out = &out_tensor;
  args.q_heads = shape_.q_heads;
  const tools::Stopwatch watch;
  const auto ran = cache_->check(cache_->api().step_run(step_, layer, &args));
  times_.run_seconds += watch.seconds();
  return ran;
}

Outcome<void> CacheAttention::commit() {
  const tools::Stopwatch watch;
  KVANT_TRY(cache_->check(cache_->api().step_commit(step_)));
  times_.plan_seconds += watch.seconds();
  ++times_.steps;
  step_ = nullptr;
  for (const BatchEntry& entry : entries_) {
    lengths_[entry.slot] += entry.count;
  }
  return {};
}

void CacheAttention::abort() {
  if (step_ != nullptr) {
    cache_->api().step_abort(step_);
    step_ = nullptr;
  }
}

Outcome<void> CacheAttention::truncate(uint64_t tokens) {
  for (size_t slot = 0; slot < sequences_.size(); ++slot) {
    const uint64_t length = std::min<uint64_t>(tokens, lengths_[slot]);
    KVANT_TRY(cache_->check(cache_->api().sequence_truncate(cache_->handle(), sequences_[slot], length)));
    lengths_[slot] = static_cast<uint32_t>(length);
  }
  return {};
}

AttentionTimes CacheAttention::take_times() { return std::exchange(times_, {}); }

}  // namespace kvant::engine
