// One snapshot of a cache's statistics as a log holds it (docs/monitoring.md), read and checked, and the differences of
// two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "outcome.hpp"

namespace kvant::tools {

struct SnapshotLookups {
  uint64_t queries_tokens = 0, hit_tokens = 0, queries = 0, hits = 0;
};

struct SnapshotPool {
  uint64_t pool_bytes = 0, used_bytes = 0, total_pages = 0, used_pages = 0;
  uint64_t shared_pages = 0, index_pages = 0, tail_waste_tokens = 0;
};

struct SnapshotLayer {
  uint64_t layer = 0;
  std::string format_k, format_v;
  uint64_t used_bytes = 0, allocated_bytes = 0, appended_tokens = 0;
  std::string formats() const { return format_k == format_v ? format_k : format_k + "/" + format_v; }
};

struct SnapshotSequence {
  uint64_t id = 0, tokens = 0, pages = 0, shared_pages = 0, bytes = 0, reused_tokens = 0;
};

struct SnapshotTier {
  std::string name;
  uint64_t gets = 0, hits = 0, puts = 0, rejected = 0, corrupt = 0, errors = 0, evictions = 0;
  uint64_t entries = 0, bytes = 0, capacity_bytes = 0;
};

struct SnapshotLatency {
  std::string operation;
  uint64_t count = 0;
  double sum_seconds = 0, p50_seconds = 0, p99_seconds = 0, greatest_seconds = 0;
  std::map<double, uint64_t> buckets;  // upper bound, infinity for the last -> count
};

struct SnapshotError {
  uint64_t layer = 0;
  std::string side;
  std::optional<double> relative_mse;
  uint64_t samples = 0;
};

struct SnapshotTrend {
  std::string metric, trend, text;
  bool enough = false;
};

struct SnapshotEvent {
  uint64_t number = 0, time_ms = 0, kind = 0, a = 0, b = 0, sequence = 0;
};

struct Snapshot {
  uint64_t time_ms = 0;  // of the engine's monotonic clock
  uint64_t unix_ms = 0;
  std::string policy;
  uint64_t capacity_tokens = 0, page_tokens = 0, ttl_ms = 0, limit_bytes = 0;
  SnapshotPool pool;
  SnapshotLookups lookups;
  std::vector<std::pair<std::string, uint64_t>> evictions;  // pages by cause
  std::vector<SnapshotLayer> layers;
  std::vector<SnapshotSequence> sequences;
  std::vector<SnapshotTier> tiers;
  std::vector<SnapshotError> errors;
  std::vector<SnapshotLatency> latency;
  bool monitored = false;  // whether the two below are known
  std::vector<SnapshotTrend> trends;
  std::vector<std::pair<std::string, std::string>> recommendations;  // rule, text
  std::vector<SnapshotEvent> events;                                 // since the line before
  uint64_t events_left_out = 0;

  const SnapshotLatency* find_latency(const std::string& operation) const;
};

// Of one line of a log. Members that are not known are left alone; control characters in texts become '?', so that a
// log cannot steer a terminal. The failure says which member is wrong, and how.
Outcome<Snapshot> parse_snapshot(const std::string& line);

// What lies between two snapshots of one cache.
struct SnapshotInterval {
  double seconds = 0;
  SnapshotLookups lookups;
  std::vector<std::pair<std::string, uint64_t>> evictions;
  std::vector<SnapshotLatency> latency;  // count, sum, quantiles and buckets of the interval alone
  const SnapshotLatency* find_latency(const std::string& operation) const;
};

// Nothing where `after` is not a later snapshot of the same cache: time stood still, or a counter fell.
std::optional<SnapshotInterval> interval_between(const Snapshot& before, const Snapshot& after);

// Of many events a few: the latest of those that tell of single decisions (a conversion, another policy or limit, a
// save or load), and with what room they leave the latest of all others.
class EventPick {
 public:
  explicit EventPick(size_t most) : most_(most) {}
  void add(const SnapshotEvent& event);
  std::vector<SnapshotEvent> events() const;  // in their order

 private:
  size_t most_;
  std::deque<SnapshotEvent> frequent_, rare_;
};

// The event's kind in words: "page_published"; its number where it is not known.
std::string event_kind_name(uint64_t kind);

}  // namespace kvant::tools
