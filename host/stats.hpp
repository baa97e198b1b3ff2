// Statistics of one cache: plain numbers, filled in by the cache, and the two texts that hosts read them in. Counters
// never fall while the cache lives; every counter stands beside its denominator. What each number means:
// docs/monitoring.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "histogram.hpp"
#include "status.hpp"
#include "tier.hpp"

namespace kvant {

struct LookupCounters {
  std::uint64_t queries_tokens = 0, hit_tokens = 0;  // tokens asked for, and those of them found
  std::uint64_t queries = 0, hits = 0;               // lookups, and those of them that found anything
  std::optional<double> hit_rate() const;            // of tokens; empty if none was asked for
};

// Why an entry left; also `b` of EventKind::page_evicted.
enum class EvictionCause : std::uint32_t { capacity, expired, cleared, limit };
inline constexpr std::size_t kEvictionCauses = 4;
std::string_view eviction_cause_name(EvictionCause cause);

struct EvictionCounters {
  std::array<std::uint64_t, kEvictionCauses> pages = {};
  std::uint64_t& operator[](EvictionCause cause) { return pages[static_cast<std::size_t>(cause)]; }
  std::uint64_t operator[](EvictionCause cause) const { return pages[static_cast<std::size_t>(cause)]; }
  std::uint64_t total() const;
};

enum class Operation : std::uint32_t { plan, run, commit, lookup, store, load, convert };
inline constexpr std::size_t kOperations = 7;
std::string_view operation_name(Operation operation);

struct PoolStats {
  std::uint64_t pool_bytes = 0;   // allocated on the device, in slabs
  std::uint64_t used_bytes = 0;   // of these, in pages that something holds
  std::uint64_t total_pages = 0;  // that may be in use at once, allocated or not
  std::uint64_t used_pages = 0;
  std::uint64_t shared_pages = 0;       // held by more than one sequence, each once; the prefix index is none
  std::uint64_t index_pages = 0;        // held by the prefix index alone: may be evicted
  std::uint64_t tail_waste_tokens = 0;  // token slots of open pages without a token
  double fragmentation() const;         // share of pool_bytes that no page uses; 0 for an empty pool
  double used_share() const;            // used_pages of total_pages
};

struct LayerStats {
  std::uint32_t layer = 0;
  std::string format_k, format_v;
  std::uint64_t used_bytes = 0, allocated_bytes = 0;
  std::uint64_t appended_tokens = 0;
  LookupCounters lookups;  // of calls that name the layer
};

struct SequenceStats {
  std::uint64_t id = 0;
  std::uint64_t tokens = 0, pages = 0;
  std::uint64_t shared_pages = 0;  // of its pages, those that anything else holds too, be it the prefix index
  std::uint64_t bytes = 0;
  std::uint64_t reused_tokens = 0;  // of its tokens, those that were there when it was created
};

struct NamedTierStats {
  std::string name;
  TierStats stats;
};

enum class ErrorSide : std::uint32_t { k, v };
struct QuantizationError {
  std::uint32_t layer = 0;
  ErrorSide side = ErrorSide::k;
  // Sums, so that samples of any size and any interval combine exactly.
  double error_squares = 0, value_squares = 0;
  std::uint64_t samples = 0;                   // rows compared
  std::optional<double> relative_mse() const;  // empty without samples, or where all values are 0
};

struct CacheStats {
  // What the recommendations speak of.
  std::string policy;  // policy_name()
  std::uint64_t capacity_tokens = 0;
  std::uint64_t page_tokens = 0;
  std::uint64_t ttl_ms = 0;       // 0: entries do not expire
  std::uint64_t limit_bytes = 0;  // 0: no limit

  PoolStats pool;
  std::vector<LayerStats> layers;
  std::vector<SequenceStats> sequences;
  LookupCounters lookups;  // of the prefix index
  EvictionCounters evictions;
  std::vector<NamedTierStats> tiers;  // from warm to cold
  std::vector<QuantizationError> quantization;
  std::array<LatencyHistogram, kOperations> latency;
  LatencyHistogram& operator[](Operation operation) { return latency[static_cast<std::size_t>(operation)]; }
  const LatencyHistogram& operator[](Operation operation) const { return latency[static_cast<std::size_t>(operation)]; }
};

// One JSON object. Whole numbers are exact, others the shortest text that reads back the same; a rate without a
// denominator and what is no finite number are null. The order of keys is fixed. Bytes that are no UTF-8 become U+FFFD.
std::string stats_json(const CacheStats& stats);

using Labels = std::vector<std::pair<std::string, std::string>>;  // name, value
struct LabelledStats {
  const CacheStats* stats = nullptr;
  Labels labels;
};
// Prometheus text format 0.0.4 of several caches, which their labels must tell apart.
// Errors: invalid_argument (no label name, a name that kvant uses itself, a name twice, two caches with equal labels).
Result<std::string> stats_prometheus(std::span<const LabelledStats> caches);
Result<std::string> stats_prometheus(const CacheStats& stats, const Labels& labels);

}  // namespace kvant
