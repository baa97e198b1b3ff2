// CacheImpl: statistics as they are now, and samples of the quantization error.
#include <algorithm>
#include <array>
#include <map>

#include "cache_impl.hpp"
#include "checked.hpp"

namespace kvant {

CacheStats CacheImpl::stats() const {
  CacheStats stats;
  stats.policy = prefixes_ != nullptr ? policy_name(spec_.policy.kind) : "";
  stats.capacity_tokens = spec_.capacity_tokens;
  stats.page_tokens = geometry_.page_tokens;
  stats.ttl_ms = spec_.policy.ttl_ms;
  stats.limit_bytes = limit_bytes_;
  stats.latency = journal_.latency;
  const MemoryUse use = memory_use();
  stats.pool.pool_bytes = use.pool_bytes;
  stats.pool.used_bytes = use.used_bytes;
  stats.pool.total_pages = use.total_pages;
  stats.pool.used_pages = use.used_pages;
  for (const PagePool& pool : pools_) stats.pool.index_pages += pool.index_only_pages();
  for (std::uint32_t layer = 0; layer < geometry_.layers.size(); ++layer) stats.layers.push_back(layer_stats(layer));
  add_sequences(stats);
  stats.lookups = {prefix_counters_.lookup_tokens, prefix_counters_.hit_tokens, prefix_counters_.lookups, prefix_counters_.hits};
  stats.evictions[EvictionCause::capacity] = prefix_counters_.evicted_capacity;
  stats.evictions[EvictionCause::expired] = prefix_counters_.evicted_expired;
  stats.evictions[EvictionCause::cleared] = prefix_counters_.evicted_cleared;
  stats.evictions[EvictionCause::limit] = prefix_counters_.evicted_limit;
  if (tiers_ != nullptr)
    for (const TierStackStats::Named& tier : tiers_->stats().tiers) stats.tiers.push_back({tier.name, tier.stats});
  for (std::uint32_t layer = 0; layer < geometry_.layers.size(); ++layer)
    for (const Side side : {Side::k, Side::v}) {
      QuantizationError error = journal_.layers[layer].errors[static_cast<std::size_t>(side)];
      if (error.samples == 0) continue;
      error.layer = layer;
      error.side = side == Side::k ? ErrorSide::k : ErrorSide::v;
      stats.quantization.push_back(error);
    }
  return stats;
}

LayerStats CacheImpl::layer_stats(std::uint32_t layer) const {
  const LayerGeometry& facts = geometry_.layers[layer];
  LayerStats stats;
  stats.layer = layer;
  stats.format_k = format_info(facts.sides[0].format).name;
  stats.format_v = format_info(facts.sides[1].format).name;
  const GroupGeometry& group = geometry_.groups[facts.group];
  for (std::uint32_t grade = 0; grade < group.grades; ++grade) stats.used_bytes += facts.page_bytes(grade) * pools_[facts.group].used_pages_of(grade);
  for (std::uint32_t slab = 0; slab < group.slab_ids(); ++slab)
    if (slabs_.allocated({facts.group, slab})) stats.allocated_bytes += slabs_.layout(layer, slab).total_bytes;
  stats.appended_tokens = journal_.layers[layer].appended_tokens;
  stats.lookups = journal_.layers[layer].lookups;
  return stats;
}

// Sequences, and of the pool what only they can tell: pages that several hold, and empty slots of open pages.
void CacheImpl::add_sequences(CacheStats& stats) const {
  const std::uint64_t page_tokens = geometry_.page_tokens;
  std::vector<std::map<std::int32_t, std::uint32_t>> holders(pools_.size());
  for (const auto& [id, sequence] : sequences_) {
    SequenceStats row;
    row.id = id;
    row.tokens = sequence.length;
    row.reused_tokens = sequence.reused;
    for (std::size_t g = 0; g < pools_.size(); ++g) {
      const GroupGeometry& group = geometry_.groups[g];
      std::array<std::uint64_t, kMostGrades> bytes{};
      for (std::uint32_t grade = 0; grade < group.grades; ++grade) bytes[grade] = page_bytes(static_cast<std::uint32_t>(g), grade);
      for (const std::int32_t page : sequence.tables[g].pages()) {
        if (page == kNoPage) continue;
        ++row.pages;
        row.bytes += bytes[group.grade_of(group.slab_of(static_cast<std::uint32_t>(page)))];
        if (pools_[g].references(static_cast<std::uint32_t>(page)) > 1) ++row.shared_pages;
        ++holders[g][page];
      }
      if (sequence.length % page_tokens != 0) stats.pool.tail_waste_tokens += page_tokens - sequence.length % page_tokens;
    }
    stats.sequences.push_back(row);
  }
  for (const auto& of_group : holders)
    for (const auto& [page, count] : of_group) stats.pool.shared_pages += count > 1 ? 1 : 0;
}

EventBatch CacheImpl::events(std::uint64_t since, std::size_t most) const { return journal_.events().poll(since, most); }

void CacheImpl::sample_errors(std::uint64_t every_tokens) { journal_.sample_every(every_tokens); }

// Compares a fresh token, as it was given in host memory, with what is stored of it.
void CacheImpl::sample_error(std::uint32_t layer, const RunArgs& args) {
  const std::uint64_t token = step_.sampled_token;
  const GroupTables& tables = step_.groups[geometry_.layers[layer].group];
  if (token >= tables.batch.slots.size() || tables.batch.slots[token] < 0) return;
  if (args.k.host == nullptr || args.v.host == nullptr || args.k.type != IoType::f32) return;
  const std::uint32_t kv_heads = geometry_.group_of(layer).kv_heads;
  for (const Side side : {Side::k, Side::v}) {
    const TensorView& given = side == Side::k ? args.k : args.v;
    const std::uint32_t dim = geometry_.layers[layer].side(side).head_dim;
    const std::uint64_t head_stride = given.head_stride != 0 ? given.head_stride : dim;
    const std::uint64_t token_stride = given.token_stride != 0 ? given.token_stride : head_stride * kv_heads;
    std::vector<float> stored(std::size_t{kv_heads} * dim);
    TensorView view;
    view.host = reinterpret_cast<std::byte*>(stored.data());
    const std::int32_t slot = tables.batch.slots[token];
    if (!read_by_slots(layer, side, {&slot, 1}, view).ok()) return;
    QuantizationError& error = journal_.layers[layer].errors[static_cast<std::size_t>(side)];
    const auto* rows = reinterpret_cast<const float*>(given.host) + token * token_stride;
    for (std::uint32_t head = 0; head < kv_heads; ++head)
      for (std::uint32_t i = 0; i < dim; ++i) {
        const double value = static_cast<double>(rows[head * head_stride + i]);
        const double off = static_cast<double>(stored[std::size_t{head} * dim + i]) - value;
        error.error_squares += off * off;
        error.value_squares += value * value;
      }
    error.samples += kv_heads;
  }
}

}  // namespace kvant
