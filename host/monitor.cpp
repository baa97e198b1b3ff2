// The monitor's history, samples and trends; its rules are in monitor_rules.cpp.
#include "monitor.hpp"

#include <algorithm>
#include <cmath>

#include "monitor_rules.hpp"
#include "number_text.hpp"
#include "trend.hpp"

namespace kvant {
namespace {

struct MetricRow {
  std::string_view name, words;
  bool rising_is_good;
  // The dead band is no smaller than this, and than this share of the median: what nobody would act on.
  double least_change, least_share;
  std::string (*text)(double);
};

std::string rate_text(double value) { return percent_text(std::clamp(value, 0.0, 1.0)); }
std::string per_second_text(double value) { return decimal_text(std::max(value, 0.0)) + " per s"; }
std::string seconds_text(double value) { return duration_text(std::max(value, 0.0)); }
std::string error_text(double value) { return decimal_text(std::max(value, 0.0)); }

constexpr std::array<MetricRow, kMetrics> kRows = {{
    {"hit_rate", "Hit rate", true, 0.02, 0, rate_text},
    {"used_share", "Used share of the pool", false, 0.02, 0, rate_text},
    {"evictions_per_s", "Eviction rate", false, 0.1, 0.1, per_second_text},
    {"run_p50", "Median time of run", false, 0, 0.1, seconds_text},
    {"run_p99", "99th percentile of run", false, 0, 0.1, seconds_text},
    {"tier_hit_rate", "Tier hit rate", true, 0.02, 0, rate_text},
    {"quantization_error", "Quantization error", false, 0, 0.1, error_text},
}};

std::string sentence(const MetricRow& row, const TrendReport& report, double seconds, std::size_t needed) {
  std::string text(row.words);
  if (!report.enough)
    return text + " counts as stable: " + count_text(report.samples) + (report.samples == 1 ? " sample" : " samples") +
           " of it in the window, " + count_text(needed) + " are needed.";
  text += " is ";
  text += trend_name(report.trend);
  return text + ": " + row.text(report.first) + " to " + row.text(report.last) + " over " + duration_text(seconds) +
         ", " + count_text(report.samples) + " samples; changes up to " + row.text(report.dead_band) +
         " count as none.";
}

}  // namespace

std::string_view metric_name(Metric metric) {
  const auto index = static_cast<std::size_t>(metric);
  return index < kMetrics ? kRows[index].name : "unknown";
}

std::string_view trend_name(Trend trend) {
  switch (trend) {
    case Trend::improving:
      return "improving";
    case Trend::stable:
      return "stable";
    case Trend::degrading:
      return "degrading";
  }
  return "unknown";
}

MonitorSample sample_of(const Interval& interval) {
  MonitorSample sample;
  sample.time_ms = interval.end_ms;
  sample.start_ms = interval.start_ms;
  sample.hit_rate = interval.lookups.hit_rate();
  sample.used_share = interval.used_share;
  sample.evictions_per_s = interval.evictions_per_s();
  if (interval.run.count() > 0) {
    sample.run_p50 = interval.run.quantile(0.5);
    sample.run_p99 = interval.run.quantile(0.99);
  }
  sample.tier_hit_rate = interval.tier_hit_rate();
  sample.quantization_error = interval.quantization_error();
  return sample;
}

std::optional<double> sample_value(const MonitorSample& sample, Metric metric) {
  switch (metric) {
    case Metric::hit_rate:
      return sample.hit_rate;
    case Metric::used_share:
      return sample.used_share;
    case Metric::evictions_per_s:
      return sample.evictions_per_s;
    case Metric::run_p50:
      return sample.run_p50;
    case Metric::run_p99:
      return sample.run_p99;
    case Metric::tier_hit_rate:
      return sample.tier_hit_rate;
    case Metric::quantization_error:
      return sample.quantization_error;
  }
  return std::nullopt;
}

Monitor::Monitor(const MonitorOptions& options)
    : options_(options), history_(std::min<std::size_t>(options.capacity, 1024)) {
  options_.min_samples = std::max<std::size_t>(4, options_.min_samples);
}

bool Monitor::observe(const CacheStats& stats, std::uint64_t time_ms) {
  if (last_ && time_ms <= last_ms_) return false;
  if (last_) history_.add(interval_between(*last_, last_ms_, stats, time_ms));
  last_ = stats;
  last_->sequences.clear();
  last_ms_ = time_ms;
  return true;
}

std::vector<MonitorSample> Monitor::samples() const {
  std::vector<MonitorSample> result;
  for (const Interval& interval : history_.intervals()) result.push_back(sample_of(interval));
  return result;
}

std::vector<const Interval*> Monitor::window() const {
  const std::uint64_t begin = last_ms_ - std::min(last_ms_, options_.window_ms);
  std::vector<const Interval*> result;
  for (const Interval& interval : history_.intervals())
    if (interval.start_ms + (interval.end_ms - interval.start_ms) / 2 >= begin) result.push_back(&interval);
  return result;
}

TrendReport Monitor::trend(Metric metric) const {
  TrendReport report;
  const auto index = static_cast<std::size_t>(metric);
  if (index >= kMetrics) return report;
  const MetricRow& row = kRows[index];
  std::vector<TrendPoint> points;
  for (const Interval* interval : window()) {
    const std::optional<double> value = sample_value(sample_of(*interval), metric);
    const double middle = (static_cast<double>(interval->start_ms) + static_cast<double>(interval->end_ms)) / 2000;
    if (value && std::isfinite(*value)) points.push_back({middle, *value});
  }
  report.samples = points.size();
  report.enough = points.size() >= options_.min_samples;
  double seconds = 0;
  if (report.enough) {
    const TrendLine line = fit_trend(points);
    report.first = line.first;
    report.last = line.last;
    report.dead_band =
        std::max({noise_band(line.noise, points.size()), row.least_change, row.least_share * std::abs(line.median)});
    const double change = line.last - line.first;
    if (std::abs(change) > report.dead_band)
      report.trend = (change > 0) == row.rising_is_good ? Trend::improving : Trend::degrading;
    seconds = points.back().time - points.front().time;
  }
  report.text = sentence(row, report, seconds, options_.min_samples);
  return report;
}

std::vector<Recommendation> Monitor::recommendations() const {
  const std::vector<const Interval*> intervals = window();
  if (!last_ || intervals.empty()) return {};
  MonitorFacts facts;
  facts.now = &*last_;
  const auto merged = [&](std::size_t begin, std::size_t end) {
    Interval whole = *intervals[begin];
    for (std::size_t i = begin + 1; i < end; ++i) append_interval(whole, *intervals[i]);
    return whole;
  };
  const std::size_t quarter = std::max<std::size_t>(1, intervals.size() / 4);
  facts.early = merged(0, quarter);
  facts.late = merged(intervals.size() - quarter, intervals.size());
  facts.whole = merged(0, intervals.size());
  facts.enough = intervals.size() >= options_.min_samples;
  for (std::size_t i = 0; i < kMetrics; ++i) facts.trends[i] = trend(static_cast<Metric>(i)).trend;
  for (const Interval* interval : intervals) facts.most_used = std::max(facts.most_used, interval->used_share);

  std::vector<Recommendation> result;
  for (const MonitorRule& rule : monitor_rules())
    if (rule.applies(facts)) result.push_back({rule.name, rule.text(facts)});
  return result;
}

}  // namespace kvant
