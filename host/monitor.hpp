// Monitor: a history of a cache's statistics, what they are tending to, and what to do about it, in sentences with the
// numbers behind them. It is fed snapshots and asks for nothing itself. Thread rule: one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "monitor_history.hpp"

namespace kvant {

enum class Metric : std::uint32_t {
  hit_rate,    // more is better
  used_share,  // of the pool's pages; less is better, as for the rest but tier_hit_rate
  evictions_per_s,
  run_p50,  // seconds
  run_p99,
  tier_hit_rate,
  quantization_error,  // relative MSE
};
inline constexpr std::size_t kMetrics = 7;
std::string_view metric_name(Metric metric);

// One interval as rates. Empty: nothing to divide by.
struct MonitorSample {
  std::uint64_t time_ms = 0, start_ms = 0;  // the interval's end and begin
  std::optional<double> hit_rate;           // of tokens
  double used_share = 0;
  double evictions_per_s = 0;
  std::optional<double> run_p50, run_p99;  // seconds
  std::optional<double> tier_hit_rate;
  std::optional<double> quantization_error;
};
MonitorSample sample_of(const Interval& interval);
std::optional<double> sample_value(const MonitorSample& sample, Metric metric);

enum class Trend : std::uint32_t { improving, stable, degrading };
std::string_view trend_name(Trend trend);

struct TrendReport {
  Trend trend = Trend::stable;
  bool enough = false;         // false: too few samples to tell, which counts as stable
  std::size_t samples = 0;     // of the window, with a value
  double first = 0, last = 0;  // of the robust line, at the window's ends
  double dead_band = 0;        // a change up to this is none
  std::string text;            // one sentence
};

struct Recommendation {
  std::string_view rule;  // name of the rule, for programs
  std::string text;       // for people
};

struct MonitorOptions {
  std::size_t capacity = 240;         // intervals kept, 16 to 1024; about 1 KB each
  std::uint64_t window_ms = 600'000;  // that trends and recommendations look back
  std::size_t min_samples = 8;        // fewer make no trend; at least 4
};

class Monitor {
 public:
  explicit Monitor(const MonitorOptions& options = {});

  // A snapshot of the cache; time of a monotonic clock. The first one only begins the first interval. false: not taken,
  // because time did not go on.
  bool observe(const CacheStats& stats, std::uint64_t time_ms);

  std::vector<MonitorSample> samples() const;  // in order of time; older ones stand for longer intervals
  TrendReport trend(Metric metric) const;
  std::vector<Recommendation> recommendations() const;  // in the order of the rules; empty: nothing to say

 private:
  std::vector<const Interval*> window() const;  // those whose middle is in the window

  MonitorOptions options_;
  MonitorHistory history_;
  std::optional<CacheStats> last_;  // without its sequences
  std::uint64_t last_ms_ = 0;
};

}  // namespace kvant
