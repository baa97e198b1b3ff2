// The calls of a step, timed; and what is kept of a tree of drafted tokens.
#include "cache_attention.hpp"

#include <algorithm>

#include "../clock.hpp"

namespace kvant::engine {

Outcome<std::unique_ptr<CacheAttention>> CacheAttention::create(std::shared_ptr<tools::Device> device,
                                                                const AttentionShape& shape, uint32_t format_k,
                                                                uint32_t format_v, uint64_t capacity_tokens,
                                                                uint32_t slots) {
  return create(std::move(device), shape,
                {shape.layers, shape.kv_heads, shape.head_dim, format_k, format_v, capacity_tokens}, slots);
}

Outcome<std::unique_ptr<CacheAttention>> CacheAttention::create(std::shared_ptr<tools::Device> device,
                                                                const AttentionShape& shape,
                                                                const tools::CacheShape& cache_shape, uint32_t slots) {
  std::unique_ptr<CacheAttention> attention(new CacheAttention(shape));
  auto cache = tools::Cache::create(std::move(device), cache_shape);
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
  std::vector<std::vector<int32_t>> ids(entries.size());
  entries_.assign(entries.begin(), entries.end());
  tokens_ = 0;
  for (BatchEntry& entry : entries_) {
    if (entry.slot >= sequences_.size() || entry.position != lengths_[entry.slot]) {
      return Failure{"the batch puts tokens at position " + std::to_string(entry.position) + " of slot " +
                     std::to_string(entry.slot) + ", which is not the end of that sequence"};
    }
    kvant_step_entry step_entry{};
    step_entry.struct_size = sizeof(step_entry);
    step_entry.sequence = sequences_[entry.slot];
    step_entry.append = entry.count;
    step_entry.queries = entry.count;
    if (!entry.mask.empty()) {
      if (entry.count == 0 || entry.mask.size() % entry.count != 0) {
        return Failure{"the mask of " + std::to_string(entry.mask.size()) + " words is not " +
                       std::to_string(entry.count) + " rows of equal length"};
      }
      step_entry.mask = entry.mask.data();
      step_entry.mask_begin = entry.mask_begin;
      step_entry.mask_row_words = static_cast<uint32_t>(entry.mask.size() / entry.count);
    }
    if (!entry.tokens.empty()) {
      if (entry.tokens.size() != entry.count) {
        return Failure{"the entry has " + std::to_string(entry.tokens.size()) + " token ids for " +
                       std::to_string(entry.count) + " tokens"};
      }
      std::vector<int32_t>& own = ids[step_entries.size()];
      own.assign(entry.tokens.begin(), entry.tokens.end());
      step_entry.tokens = own.data();
    }
    step_entries.push_back(step_entry);
    tokens_ += entry.count;
  }
  const auto planned = plan(step_entries);
  for (BatchEntry& entry : entries_) {
    entry.mask = {};  // the caller's, and read
    entry.tokens = {};
  }
  return planned;
}

Outcome<void> CacheAttention::plan(std::span<const kvant_step_entry> entries) {
  kvant_step_args args{};
  args.struct_size = sizeof(args);
  args.entry_count = static_cast<uint32_t>(entries.size());
  args.entries = entries.data();
  const tools::Stopwatch watch;
  const auto planned = cache_->check(cache_->api().step_plan(cache_->handle(), &args, &step_));
  times_.plan_seconds += watch.seconds();
  return planned;
}

Outcome<void> CacheAttention::run(uint32_t layer, const float* k, const float* v, const float* q, float* out) {
  if (recording_) {
    // By place and not at the end: an aborted step or a layer that runs twice leaves nothing behind.
    const size_t row = size_t{shape_.kv_heads} * shape_.head_dim;
    const size_t kept = (lengths_[0] - recorded_begin_) * row;
    Recorded& recorded = recorded_[layer];
    recorded.k.resize(kept);
    recorded.v.resize(kept);
    recorded.k.insert(recorded.k.end(), k, k + tokens_ * row);
    recorded.v.insert(recorded.v.end(), v, v + tokens_ * row);
  }
  return run_step(layer, k, v, q, out);
}

Outcome<void> CacheAttention::run_step(uint32_t layer, const float* k, const float* v, const float* q, float* out) {
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
  if (q != nullptr) {
    args.q = &q_tensor;
    args.out = &out_tensor;
    args.q_heads = shape_.q_heads;
    args.flags = run_flags_;
  }
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

Outcome<uint32_t> CacheAttention::open(uint32_t slot, std::span<const uint32_t> prompt) {
  const std::vector<int32_t> ids(prompt.begin(), prompt.end());
  kvant_sequence_args args{};
  args.struct_size = sizeof(args);
  args.tokens = ids.data();
  args.token_count = ids.size();
  args.leave_tokens = 1;
  KVANT_TRY(cache_->check(cache_->api().sequence_destroy(cache_->handle(), sequences_[slot])));
  kvant_sequence sequence = 0;
  uint64_t reused = 0;
  sequences_[slot] = 0;
  lengths_[slot] = 0;
  KVANT_TRY(cache_->check(cache_->api().sequence_open(cache_->handle(), &args, &sequence, &reused)));
  sequences_[slot] = sequence;
  lengths_[slot] = static_cast<uint32_t>(reused);
  return lengths_[slot];
}

Outcome<void> CacheAttention::refresh_lengths() {
  for (size_t slot = 0; slot < sequences_.size(); ++slot) {
    uint64_t length = 0;
    KVANT_TRY(cache_->check(cache_->api().sequence_length(cache_->handle(), sequences_[slot], &length)));
    lengths_[slot] = static_cast<uint32_t>(length);
  }
  return {};
}

Outcome<void> CacheAttention::prune(uint32_t slot, uint64_t tokens, uint32_t sinks, uint32_t recent) {
  const auto manager = cache_->manager();
  if (!manager.ok()) {
    return manager.failure();
  }
  kvant_prune_args args{};
  args.struct_size = sizeof(args);
  args.keep_tokens = tokens;
  args.sinks = sinks;
  args.recent = recent;
  uint64_t kept = 0;
  KVANT_TRY(cache_->check((*manager)->sequence_prune(cache_->handle(), sequences_[slot], &args, nullptr, &kept)));
  lengths_[slot] = static_cast<uint32_t>(kept);
  return {};
}

Outcome<void> CacheAttention::keep_ends(uint32_t slot, uint64_t tokens, uint32_t sinks) {
  const auto manager = cache_->manager();
  if (!manager.ok()) {
    return manager.failure();
  }
  const uint64_t length = lengths_[slot];
  if (tokens >= length) {
    return {};
  }
  std::vector<uint64_t> places;
  for (uint64_t i = 0; i < tokens; ++i) {
    places.push_back(i < sinks ? i : length - tokens + i);
  }
  KVANT_TRY(cache_->check((*manager)->sequence_keep(cache_->handle(), sequences_[slot], places.size(), places.data())));
  lengths_[slot] = static_cast<uint32_t>(tokens);
  return {};
}

Outcome<void> CacheAttention::record() {
  if (sequences_.size() != 1) {
    return Failure{"a cache of " + std::to_string(sequences_.size()) + " slots cannot record: it must have one"};
  }
  recording_ = true;
  recorded_begin_ = lengths_[0];
  recorded_.assign(shape_.layers, {});
  return {};
}

Outcome<void> CacheAttention::keep(std::span<const uint32_t> places) {
  if (!recording_) {
    return Failure{"no record was begun"};
  }
  uint64_t least = recorded_begin_;
  size_t in_place = 0;
  for (const uint32_t place : places) {
    if (place < least || place >= lengths_[0]) {
      return Failure{"the place (" + std::to_string(place) + ") is not from " + std::to_string(least) + " to before " +
                     std::to_string(lengths_[0])};
    }
    in_place += place == recorded_begin_ + in_place ? 1 : 0;
    least = uint64_t{place} + 1;
  }
  recording_ = false;
  KVANT_TRY(truncate(recorded_begin_ + in_place));
  return in_place == places.size() ? Outcome<void>() : append_recorded(places.subspan(in_place));
}

Outcome<void> CacheAttention::append_recorded(std::span<const uint32_t> places) {
  const auto count = static_cast<uint32_t>(places.size());
  kvant_step_entry entry{};
  entry.struct_size = sizeof(entry);
  entry.sequence = sequences_[0];
  entry.append = count;
  entries_ = {{0, lengths_[0], count}};
  tokens_ = count;
  KVANT_TRY(plan({&entry, 1}));
  const size_t row = size_t{shape_.kv_heads} * shape_.head_dim;
  std::vector<float> k(count * row), v(count * row);
  for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
    for (size_t i = 0; i < places.size(); ++i) {
      const size_t from = (places[i] - recorded_begin_) * row;
      std::copy_n(recorded_[layer].k.data() + from, row, k.data() + i * row);
      std::copy_n(recorded_[layer].v.data() + from, row, v.data() + i * row);
    }
    if (auto ran = run_step(layer, k.data(), v.data(), nullptr, nullptr); !ran.ok()) {
      abort();
      return ran;
    }
  }
  auto committed = commit();
  if (!committed.ok()) {
    abort();
  }
  return committed;
}

AttentionTimes CacheAttention::take_times() { return std::exchange(times_, {}); }

}  // namespace kvant::engine
