// What happened in an interval between two snapshots of a cache, and a bounded history of intervals in which old ones
// are merged. Intervals hold counts, not rates, so that a merged interval is exactly what one snapshot less would have
// given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stats.hpp"

namespace kvant {

struct TierInterval {
  std::string name;
  std::uint64_t gets = 0, hits = 0, puts = 0, rejected = 0, evictions = 0, corrupt = 0, errors = 0;
};

struct Interval {
  std::uint64_t start_ms = 0, end_ms = 0;
  LookupCounters lookups;
  EvictionCounters evictions;
  LatencyHistogram run;
  std::vector<TierInterval> tiers;  // by place, those of the interval's end
  double error_squares = 0, value_squares = 0;
  std::uint64_t error_samples = 0;
  double used_share = 0;  // at the end; of merged intervals the mean over time

  double seconds() const { return static_cast<double>(end_ms - start_ms) / 1000; }
  double evictions_per_s() const;                    // without what was cleared on request
  std::optional<double> tier_hit_rate() const;       // hits of gets, all tiers together
  std::optional<double> quantization_error() const;  // relative MSE over all layers and sides
};

// From `before` to `after`, a later snapshot. If counters fell it is another cache, and all of `after` is of this
// interval.
Interval interval_between(const CacheStats& before, std::uint64_t before_ms, const CacheStats& after,
                          std::uint64_t after_ms);
void append_interval(Interval& whole, const Interval& next);  // `next` begins where `whole` ends

class MonitorHistory {
 public:
  // At most `capacity` intervals, 16 or more. When they are full, the older half is merged in pairs: the younger half
  // is always as it came, before it come intervals twice as long, then four times, and the oldest one reaches back to
  // the beginning.
  explicit MonitorHistory(std::size_t capacity);

  void add(Interval interval);
  const std::vector<Interval>& intervals() const { return intervals_; }  // in order of time

 private:
  std::size_t capacity_;
  std::vector<Interval> intervals_;
};

}  // namespace kvant
