// The statistics as Prometheus families. A row a family: name, type, meaning and the cache's samples. Sequences appear
// only as totals: a label per sequence would make as many time series as there ever were requests.
#include <algorithm>
#include <array>
#include <set>

#include "prometheus_text.hpp"
#include "stats.hpp"

namespace kvant {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;

// Writes the samples of one family and one cache.
struct Writer {
  PrometheusText& text;
  std::string_view base;

  void value(std::uint64_t number) const { text.sample(base, {}, number); }
  void value(double number) const { text.sample(base, {}, number); }
  template <typename T>
  void value(std::initializer_list<Pair> labels, T number) const {
    text.sample(base, LabelPairs(labels.begin(), labels.size()), number);
  }
};

struct Family {
  std::string_view name, type, help;
  void (*write)(const CacheStats&, const Writer&);
};

template <std::uint64_t PoolStats::*member>
void pool_value(const CacheStats& stats, const Writer& out) {
  out.value(stats.pool.*member);
}

template <std::uint64_t LookupCounters::*member>
void lookups_value(const CacheStats& stats, const Writer& out) {
  out.value(stats.lookups.*member);
}

template <std::uint64_t LayerStats::*member>
void layer_value(const CacheStats& stats, const Writer& out) {
  for (const LayerStats& layer : stats.layers) out.value({{"layer", std::to_string(layer.layer)}}, layer.*member);
}

template <std::uint64_t LookupCounters::*member>
void layer_lookups(const CacheStats& stats, const Writer& out) {
  for (const LayerStats& layer : stats.layers)
    out.value({{"layer", std::to_string(layer.layer)}}, layer.lookups.*member);
}

template <auto member>
void tier_value(const CacheStats& stats, const Writer& out) {
  // The place keeps two tiers of one name apart.
  for (std::size_t i = 0; i < stats.tiers.size(); ++i)
    out.value({{"tier", stats.tiers[i].name}, {"place", std::to_string(i)}}, stats.tiers[i].stats.*member);
}

template <std::uint64_t SequenceStats::*member>
void sequence_total(const CacheStats& stats, const Writer& out) {
  std::uint64_t total = 0;
  for (const SequenceStats& sequence : stats.sequences) total += sequence.*member;
  out.value(total);
}

void layer_formats(const CacheStats& stats, const Writer& out) {
  for (const LayerStats& layer : stats.layers)
    out.value({{"layer", std::to_string(layer.layer)}, {"format_k", layer.format_k}, {"format_v", layer.format_v}},
              std::uint64_t{1});
}

void evictions(const CacheStats& stats, const Writer& out) {
  for (std::size_t i = 0; i < kEvictionCauses; ++i)
    out.value({{"cause", eviction_cause_name(static_cast<EvictionCause>(i))}}, stats.evictions.pages[i]);
}

void tier_capacity(const CacheStats& stats, const Writer& out) {
  for (std::size_t i = 0; i < stats.tiers.size(); ++i)
    if (stats.tiers[i].stats.capacity_bytes > 0)
      out.value({{"tier", stats.tiers[i].name}, {"place", std::to_string(i)}}, stats.tiers[i].stats.capacity_bytes);
}

std::string_view side_name(ErrorSide side) { return side == ErrorSide::k ? "k" : "v"; }

void relative_mse(const CacheStats& stats, const Writer& out) {
  for (const QuantizationError& error : stats.quantization)
    if (const std::optional<double> mse = error.relative_mse())
      out.value({{"layer", std::to_string(error.layer)}, {"side", side_name(error.side)}}, *mse);
}

void error_samples(const CacheStats& stats, const Writer& out) {
  for (const QuantizationError& error : stats.quantization)
    out.value({{"layer", std::to_string(error.layer)}, {"side", side_name(error.side)}}, error.samples);
}

void operation_seconds(const CacheStats& stats, const Writer& out) {
  for (std::size_t i = 0; i < kOperations; ++i) {
    const Pair label = {"operation", operation_name(static_cast<Operation>(i))};
    out.text.histogram(out.base, LabelPairs(&label, 1), stats.latency[i]);
  }
}

constexpr Family kFamilies[] = {
    {"kvant_pool_bytes", "gauge", "Bytes allocated on the device in slabs.", pool_value<&PoolStats::pool_bytes>},
    {"kvant_pool_used_bytes", "gauge", "Of kvant_pool_bytes, bytes of pages that something holds.",
     pool_value<&PoolStats::used_bytes>},
    {"kvant_pool_pages", "gauge", "Pages that may be in use at once.", pool_value<&PoolStats::total_pages>},
    {"kvant_pool_used_pages", "gauge", "Of kvant_pool_pages, pages that something holds.",
     pool_value<&PoolStats::used_pages>},
    {"kvant_pool_shared_pages", "gauge", "Of kvant_pool_used_pages, pages held by more than one sequence.",
     pool_value<&PoolStats::shared_pages>},
    {"kvant_pool_index_pages", "gauge", "Of kvant_pool_used_pages, pages held by the prefix index alone.",
     pool_value<&PoolStats::index_pages>},
    {"kvant_pool_tail_waste_tokens", "gauge", "Token slots of open pages without a token.",
     pool_value<&PoolStats::tail_waste_tokens>},
    {"kvant_pool_page_tokens", "gauge", "Token slots of a page.",
     [](const CacheStats& stats, const Writer& out) { out.value(stats.page_tokens); }},
    {"kvant_capacity_tokens", "gauge", "Tokens that the cache was made for.",
     [](const CacheStats& stats, const Writer& out) { out.value(stats.capacity_tokens); }},
    {"kvant_limit_bytes", "gauge", "Limit of the device memory, where one is set.",
     [](const CacheStats& stats, const Writer& out) {
       if (stats.limit_bytes > 0) out.value(stats.limit_bytes);
     }},
    {"kvant_policy_info", "gauge", "1, with the eviction policy as a label.",
     [](const CacheStats& stats, const Writer& out) {
       out.value({{"policy", stats.policy}}, std::uint64_t{1});
     }},

    {"kvant_lookup_queries_total", "counter", "Prefix lookups.", lookups_value<&LookupCounters::queries>},
    {"kvant_lookup_hits_total", "counter", "Of kvant_lookup_queries_total, lookups that found at least one page.",
     lookups_value<&LookupCounters::hits>},
    {"kvant_lookup_queries_tokens_total", "counter", "Tokens asked for in prefix lookups.",
     lookups_value<&LookupCounters::queries_tokens>},
    {"kvant_lookup_hit_tokens_total", "counter", "Of kvant_lookup_queries_tokens_total, tokens found.",
     lookups_value<&LookupCounters::hit_tokens>},
    {"kvant_evicted_pages_total", "counter", "Pages that left the prefix index, by cause.", evictions},

    {"kvant_layer_info", "gauge", "1, with the layer's formats as labels.", layer_formats},
    {"kvant_layer_used_bytes", "gauge", "Bytes of the layer's pages that something holds.",
     layer_value<&LayerStats::used_bytes>},
    {"kvant_layer_allocated_bytes", "gauge", "Bytes allocated for the layer in slabs.",
     layer_value<&LayerStats::allocated_bytes>},
    {"kvant_layer_appended_tokens_total", "counter", "Tokens appended to the layer.",
     layer_value<&LayerStats::appended_tokens>},
    {"kvant_layer_lookup_queries_total", "counter", "Lookups that name the layer.",
     layer_lookups<&LookupCounters::queries>},
    {"kvant_layer_lookup_hits_total", "counter", "Of kvant_layer_lookup_queries_total, lookups that found something.",
     layer_lookups<&LookupCounters::hits>},
    {"kvant_layer_lookup_queries_tokens_total", "counter", "Tokens asked for in lookups that name the layer.",
     layer_lookups<&LookupCounters::queries_tokens>},
    {"kvant_layer_lookup_hit_tokens_total", "counter", "Of kvant_layer_lookup_queries_tokens_total, tokens found.",
     layer_lookups<&LookupCounters::hit_tokens>},

    {"kvant_sequences", "gauge", "Live sequences.",
     [](const CacheStats& stats, const Writer& out) { out.value(std::uint64_t{stats.sequences.size()}); }},
    {"kvant_sequence_tokens", "gauge", "Tokens of all live sequences.", sequence_total<&SequenceStats::tokens>},
    {"kvant_sequence_reused_tokens", "gauge",
     "Of kvant_sequence_tokens, tokens that were there at the sequence's creation.",
     sequence_total<&SequenceStats::reused_tokens>},

    {"kvant_tier_gets_total", "counter", "Entries asked of the tier.", tier_value<&TierStats::gets>},
    {"kvant_tier_hits_total", "counter", "Of kvant_tier_gets_total, entries found.", tier_value<&TierStats::hits>},
    {"kvant_tier_puts_total", "counter", "Entries offered to the tier.", tier_value<&TierStats::puts>},
    {"kvant_tier_rejected_total", "counter", "Of kvant_tier_puts_total, entries that the tier did not take.",
     tier_value<&TierStats::rejected>},
    {"kvant_tier_corrupt_total", "counter", "Entries that were not what was put, each a miss.",
     tier_value<&TierStats::corrupt>},
    {"kvant_tier_errors_total", "counter", "Failures of the medium, each a miss or a rejected put.",
     tier_value<&TierStats::errors>},
    {"kvant_tier_evictions_total", "counter", "Entries that the tier let go for room.",
     tier_value<&TierStats::evictions>},
    {"kvant_tier_entries", "gauge", "Entries held; 0 where the tier cannot know.", tier_value<&TierStats::entries>},
    {"kvant_tier_bytes", "gauge", "Bytes held; 0 where the tier cannot know.", tier_value<&TierStats::bytes>},
    {"kvant_tier_capacity_bytes", "gauge", "Bytes that the tier may hold, where it has a limit.", tier_capacity},
    {"kvant_tier_read_bytes_total", "counter", "Bytes of the entries found.", tier_value<&TierStats::bytes_read>},
    {"kvant_tier_written_bytes_total", "counter", "Bytes of the entries stored.",
     tier_value<&TierStats::bytes_written>},
    {"kvant_tier_read_seconds_total", "counter", "Time spent in hits.", tier_value<&TierStats::read_seconds>},
    {"kvant_tier_write_seconds_total", "counter", "Time spent in puts.", tier_value<&TierStats::write_seconds>},

    {"kvant_quantization_relative_mse", "gauge", "Squared error of the sampled rows over their squared values.",
     relative_mse},
    {"kvant_quantization_samples_total", "counter", "Rows compared for kvant_quantization_relative_mse.",
     error_samples},
    {"kvant_operation_seconds", "histogram", "Time of an operation.", operation_seconds},
};

constexpr std::array<std::string_view, 10> kOwnLabels = {"layer", "format_k", "format_v", "cause",     "tier",
                                                         "place", "side",     "policy",   "operation", "le"};

Status check_labels(const Labels& labels) {
  std::set<std::string_view> seen;
  for (const auto& [name, value] : labels) {
    const std::string quoted = '"' + name + '"';
    if (!is_label_name(name))
      return {StatusCode::invalid_argument,
              "label name " + quoted +
                  " is not letters, digits and underscores, beginning with a letter or one underscore"};
    if (std::find(kOwnLabels.begin(), kOwnLabels.end(), name) != kOwnLabels.end())
      return {StatusCode::invalid_argument, "label name " + quoted + " is one of kvant's own; choose another"};
    if (!seen.insert(name).second)
      return {StatusCode::invalid_argument, "label name " + quoted + " is given twice; expected it once"};
  }
  return {};
}

}  // namespace

Result<std::string> stats_prometheus(std::span<const LabelledStats> caches) {
  std::vector<std::string> bases;
  std::set<Labels> seen;
  for (const LabelledStats& cache : caches) {
    KVANT_TRY(check_labels(cache.labels));
    const std::vector<Pair> pairs(cache.labels.begin(), cache.labels.end());
    bases.push_back(PrometheusText::join_labels("", pairs));
    // As a scraper will see them: an empty label is none, and their order means nothing.
    Labels scraped;
    for (const auto& [name, value] : cache.labels)
      if (!value.empty()) scraped.emplace_back(name, escape_label_value(value));
    std::sort(scraped.begin(), scraped.end());
    if (!seen.insert(std::move(scraped)).second)
      return Status(
          StatusCode::invalid_argument,
          "labels {" + bases.back() + "} are given to two caches; expected labels that tell the caches apart");
  }
  PrometheusText text;
  for (const Family& family : kFamilies) {
    text.family(family.name, family.type, family.help);
    for (std::size_t i = 0; i < caches.size(); ++i) family.write(*caches[i].stats, Writer{text, bases[i]});
  }
  return text.text();
}

Result<std::string> stats_prometheus(const CacheStats& stats, const Labels& labels) {
  const LabelledStats one{&stats, labels};
  return stats_prometheus(std::span(&one, 1));
}

}  // namespace kvant
