// The statistics as one JSON object.
#include "json_writer.hpp"
#include "stats.hpp"

namespace kvant {
namespace {

void write(JsonWriter& json, const LookupCounters& lookups) {
  json.begin_object();
  json.member("queries_tokens", lookups.queries_tokens);
  json.member("hit_tokens", lookups.hit_tokens);
  json.member("queries", lookups.queries);
  json.member("hits", lookups.hits);
  json.member("hit_rate", lookups.hit_rate());
  json.end_object();
}

void write(JsonWriter& json, const PoolStats& pool) {
  json.begin_object();
  json.member("pool_bytes", pool.pool_bytes);
  json.member("used_bytes", pool.used_bytes);
  json.member("total_pages", pool.total_pages);
  json.member("used_pages", pool.used_pages);
  json.member("shared_pages", pool.shared_pages);
  json.member("index_pages", pool.index_pages);
  json.member("fragmentation", pool.fragmentation());
  json.member("tail_waste_tokens", pool.tail_waste_tokens);
  json.end_object();
}

void write(JsonWriter& json, const LayerStats& layer) {
  json.begin_object();
  json.member("layer", layer.layer);
  json.member("format_k", layer.format_k);
  json.member("format_v", layer.format_v);
  json.member("used_bytes", layer.used_bytes);
  json.member("allocated_bytes", layer.allocated_bytes);
  json.member("appended_tokens", layer.appended_tokens);
  json.key("lookups");
  write(json, layer.lookups);
  json.end_object();
}

void write(JsonWriter& json, const SequenceStats& sequence) {
  json.begin_object();
  json.member("id", sequence.id);
  json.member("tokens", sequence.tokens);
  json.member("pages", sequence.pages);
  json.member("shared_pages", sequence.shared_pages);
  json.member("bytes", sequence.bytes);
  json.member("reused_tokens", sequence.reused_tokens);
  json.end_object();
}

void write(JsonWriter& json, const EvictionCounters& evictions) {
  json.begin_object();
  for (std::size_t i = 0; i < kEvictionCauses; ++i)
    json.member(eviction_cause_name(static_cast<EvictionCause>(i)), evictions.pages[i]);
  json.end_object();
}

void write(JsonWriter& json, const NamedTierStats& tier) {
  const TierStats& stats = tier.stats;
  json.begin_object();
  json.member("name", tier.name);
  json.member("gets", stats.gets);
  json.member("hits", stats.hits);
  json.member("puts", stats.puts);
  json.member("rejected", stats.rejected);
  json.member("corrupt", stats.corrupt);
  json.member("errors", stats.errors);
  json.member("evictions", stats.evictions);
  json.member("entries", stats.entries);
  json.member("bytes", stats.bytes);
  json.member("capacity_bytes", stats.capacity_bytes);
  json.member("bytes_read", stats.bytes_read);
  json.member("bytes_written", stats.bytes_written);
  json.member("read_seconds", stats.read_seconds);
  json.member("write_seconds", stats.write_seconds);
  json.end_object();
}

void write(JsonWriter& json, const QuantizationError& error) {
  json.begin_object();
  json.member("layer", error.layer);
  json.member("side", error.side == ErrorSide::k ? "k" : "v");
  json.member("relative_mse", error.relative_mse());
  json.member("samples", error.samples);
  json.end_object();
}

void write(JsonWriter& json, const LatencyHistogram& histogram) {
  json.begin_object();
  json.member("count", histogram.count());
  json.member("sum_seconds", histogram.sum());
  json.member("least_seconds", histogram.least());
  json.member("p50_seconds", histogram.quantile(0.5));
  json.member("p99_seconds", histogram.quantile(0.99));
  json.member("greatest_seconds", histogram.greatest());
  json.key("buckets");  // [upper bound in seconds (null: none), count], those that are not empty
  json.begin_array();
  for (std::size_t i = 0; i < LatencyHistogram::kBuckets; ++i) {
    if (histogram.count(i) == 0) continue;
    json.begin_array();
    json.value(i < LatencyHistogram::kBounds ? std::optional(LatencyHistogram::bound(i)) : std::nullopt);
    json.value(histogram.count(i));
    json.end_array();
  }
  json.end_array();
  json.end_object();
}

template <typename T>
void write_list(JsonWriter& json, std::string_view key, const std::vector<T>& items) {
  json.key(key);
  json.begin_array();
  for (const T& item : items) write(json, item);
  json.end_array();
}

}  // namespace

std::string stats_json(const CacheStats& stats) {
  std::string text;
  JsonWriter json(text);
  json.begin_object();
  json.member("policy", stats.policy);
  json.member("capacity_tokens", stats.capacity_tokens);
  json.member("page_tokens", stats.page_tokens);
  json.member("ttl_ms", stats.ttl_ms);
  json.member("limit_bytes", stats.limit_bytes);
  json.key("pool");
  write(json, stats.pool);
  json.key("lookups");
  write(json, stats.lookups);
  json.key("evictions");
  write(json, stats.evictions);
  write_list(json, "layers", stats.layers);
  write_list(json, "sequences", stats.sequences);
  write_list(json, "tiers", stats.tiers);
  write_list(json, "quantization", stats.quantization);
  json.key("latency");
  json.begin_object();
  for (std::size_t i = 0; i < kOperations; ++i) {
    json.key(operation_name(static_cast<Operation>(i)));
    write(json, stats.latency[i]);
  }
  json.end_object();
  json.end_object();
  return text;
}

}  // namespace kvant
