// The statistics as one JSON object.
#include <nlohmann/json.hpp>

#include "stats.hpp"

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json lookups_json(const LookupCounters& lookups) {
  return {{"queries_tokens", lookups.queries_tokens},
          {"hit_tokens", lookups.hit_tokens},
          {"queries", lookups.queries},
          {"hits", lookups.hits},
          {"hit_rate", optional_json(lookups.hit_rate())}};
}

Json pool_json(const PoolStats& pool) {
  return {{"pool_bytes", pool.pool_bytes},         {"used_bytes", pool.used_bytes},
          {"total_pages", pool.total_pages},       {"used_pages", pool.used_pages},
          {"shared_pages", pool.shared_pages},     {"index_pages", pool.index_pages},
          {"fragmentation", pool.fragmentation()}, {"tail_waste_tokens", pool.tail_waste_tokens}};
}

Json layer_json(const LayerStats& layer) {
  return {{"layer", layer.layer},
          {"format_k", layer.format_k},
          {"format_v", layer.format_v},
          {"used_bytes", layer.used_bytes},
          {"allocated_bytes", layer.allocated_bytes},
          {"appended_tokens", layer.appended_tokens},
          {"lookups", lookups_json(layer.lookups)}};
}

Json sequence_json(const SequenceStats& sequence) {
  return {{"id", sequence.id},       {"tokens", sequence.tokens},
          {"pages", sequence.pages}, {"shared_pages", sequence.shared_pages},
          {"bytes", sequence.bytes}, {"reused_tokens", sequence.reused_tokens}};
}

Json evictions_json(const EvictionCounters& evictions) {
  Json result = Json::object();
  for (std::size_t i = 0; i < kEvictionCauses; ++i)
    result[std::string(eviction_cause_name(static_cast<EvictionCause>(i)))] = evictions.pages[i];
  return result;
}

Json tier_json(const NamedTierStats& tier) {
  const TierStats& stats = tier.stats;
  return {{"name", tier.name},
          {"gets", stats.gets},
          {"hits", stats.hits},
          {"puts", stats.puts},
          {"rejected", stats.rejected},
          {"corrupt", stats.corrupt},
          {"errors", stats.errors},
          {"evictions", stats.evictions},
          {"entries", stats.entries},
          {"bytes", stats.bytes},
          {"capacity_bytes", stats.capacity_bytes},
          {"bytes_read", stats.bytes_read},
          {"bytes_written", stats.bytes_written},
          {"read_seconds", stats.read_seconds},
          {"write_seconds", stats.write_seconds}};
}

Json error_json(const QuantizationError& error) {
  return {{"layer", error.layer},
          {"side", error.side == ErrorSide::k ? "k" : "v"},
          {"relative_mse", optional_json(error.relative_mse())},
          {"samples", error.samples}};
}

Json histogram_json(const LatencyHistogram& histogram) {
  Json buckets = Json::array();  // [upper bound in seconds (null: none), count], those that are not empty
  for (std::size_t i = 0; i < LatencyHistogram::kBuckets; ++i) {
    if (histogram.count(i) == 0) continue;
    const Json bound = i < LatencyHistogram::kBounds ? Json(LatencyHistogram::bound(i)) : Json(nullptr);
    buckets.push_back(Json::array({bound, histogram.count(i)}));
  }
  return {{"count", histogram.count()},
          {"sum_seconds", histogram.sum()},
          {"least_seconds", histogram.least()},
          {"p50_seconds", histogram.quantile(0.5)},
          {"p99_seconds", histogram.quantile(0.99)},
          {"greatest_seconds", histogram.greatest()},
          {"buckets", std::move(buckets)}};
}

template <typename T>
Json list_json(const std::vector<T>& items, Json (*one)(const T&)) {
  Json result = Json::array();
  for (const T& item : items) result.push_back(one(item));
  return result;
}

}  // namespace

std::string stats_json(const CacheStats& stats) {
  Json latency = Json::object();
  for (std::size_t i = 0; i < kOperations; ++i)
    latency[std::string(operation_name(static_cast<Operation>(i)))] = histogram_json(stats.latency[i]);
  const Json root = {{"policy", stats.policy},
                     {"capacity_tokens", stats.capacity_tokens},
                     {"page_tokens", stats.page_tokens},
                     {"ttl_ms", stats.ttl_ms},
                     {"limit_bytes", stats.limit_bytes},
                     {"pool", pool_json(stats.pool)},
                     {"lookups", lookups_json(stats.lookups)},
                     {"evictions", evictions_json(stats.evictions)},
                     {"layers", list_json(stats.layers, layer_json)},
                     {"sequences", list_json(stats.sequences, sequence_json)},
                     {"tiers", list_json(stats.tiers, tier_json)},
                     {"quantization", list_json(stats.quantization, error_json)},
                     {"latency", std::move(latency)}};
  return root.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace kvant
