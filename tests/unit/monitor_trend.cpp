// Trends: lines with noise and outliers, the dead band, directions, too few samples.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

#include "host_random.hpp"
#include "monitor.hpp"
#include "trend.hpp"

namespace kvant {
namespace {

std::vector<TrendPoint> series(int count, double slope, double noise, test::Random& random) {
  std::vector<TrendPoint> points;
  for (int i = 0; i < count; ++i)
    points.push_back({10.0 * i, 5 + slope * 10 * i + noise * static_cast<double>(random.normal())});
  return points;
}

TEST_CASE("trend: a straight line is found exactly") {
  test::Random random(1);
  for (const double slope : {-0.5, 0.0, 2.0}) {
    const TrendLine line = fit_trend(series(9, slope, 0, random));
    CHECK(line.first == doctest::Approx(5));
    CHECK(line.last == doctest::Approx(5 + 80 * slope));
    CHECK(line.noise == doctest::Approx(0));
    CHECK(line.median == doctest::Approx(5 + 40 * slope));
  }
}

TEST_CASE("trend: a quarter of wild points does not move it") {
  test::Random random(2);
  std::vector<TrendPoint> points = series(40, 0.01, 0.01, random);
  for (std::size_t i = 0; i < points.size(); i += 4) points[i].value = random.chance(90) ? 1e6 : -1e9;
  const TrendLine line = fit_trend(points);
  CHECK(line.last - line.first == doctest::Approx(0.01 * 390).epsilon(0.05));
  CHECK(line.noise < 0.05);
}

TEST_CASE("trend: noise is measured as its standard deviation") {
  test::Random random(3);
  CHECK(fit_trend(series(500, 0.3, 2.0, random)).noise == doctest::Approx(2.0).epsilon(0.15));
}

TEST_CASE("trend: few, equal and no points") {
  CHECK(fit_trend({}).last == 0);
  const TrendPoint one[] = {{3, 7}};
  CHECK(fit_trend(one).last == 7);
  const TrendPoint same_time[] = {{3, 7}, {3, 9}};
  CHECK(fit_trend(same_time).first == 8);
  CHECK(noise_band(1, 0) == 0);
}

TEST_CASE("trend: pure noise seldom leaves the dead band, a clear slope always does") {
  test::Random random(4);
  int left = 0, found = 0;
  for (int round = 0; round < 300; ++round) {
    const int count = 8 + round % 50;
    const TrendLine noise = fit_trend(series(count, 0, 1, random));
    left += std::abs(noise.last - noise.first) > noise_band(noise.noise, static_cast<std::size_t>(count));
    const TrendLine slope = fit_trend(series(count, 1, 1, random));
    found += std::abs(slope.last - slope.first) > noise_band(slope.noise, static_cast<std::size_t>(count));
  }
  CHECK(left <= 6);
  CHECK(found == 300);
}

// A monitor of 30 samples in which one thing changes by `factor` from begin to end.
struct Drift {
  double hits = 0, pages = 0, evicted = 0, run = 0, tier_hits = 0, error = 0;
};
Monitor drifting(const Drift& drift, std::uint64_t steps = 30) {
  Monitor monitor;
  CacheStats stats;
  stats.tiers.resize(1);
  stats.quantization.resize(1);
  stats.pool.total_pages = 1000;
  for (std::uint64_t step = 0; step <= steps; ++step) {
    const double x = static_cast<double>(step) / static_cast<double>(steps);
    const auto count = [x](double base, double change) { return static_cast<std::uint64_t>(base * (1 + change * x)); };
    stats.lookups.queries_tokens += 1000;
    stats.lookups.hit_tokens += count(500, drift.hits);
    stats.pool.used_pages = count(400, drift.pages);
    stats.evictions[EvictionCause::capacity] += count(100, drift.evicted);
    for (int i = 0; i < 5; ++i) stats[Operation::run].add(0.002 * (1 + drift.run * x));
    stats.tiers[0].stats.gets += 1000;
    stats.tiers[0].stats.hits += count(500, drift.tier_hits);
    stats.quantization[0].samples += 1;
    stats.quantization[0].value_squares += 1;
    stats.quantization[0].error_squares += 0.01 * (1 + drift.error * x);
    monitor.observe(stats, 5000 * step);
  }
  return monitor;
}

TEST_CASE("trend: each metric knows which direction is good") {
  constexpr Trend kGood = Trend::improving, kBad = Trend::degrading;
  const struct {
    Metric metric;
    double Drift::*what;
    Trend up, down;
  } rows[] = {{Metric::hit_rate, &Drift::hits, kGood, kBad},
              {Metric::used_share, &Drift::pages, kBad, kGood},
              {Metric::evictions_per_s, &Drift::evicted, kBad, kGood},
              {Metric::run_p50, &Drift::run, kBad, kGood},
              {Metric::run_p99, &Drift::run, kBad, kGood},
              {Metric::tier_hit_rate, &Drift::tier_hits, kGood, kBad},
              {Metric::quantization_error, &Drift::error, kBad, kGood}};
  for (const auto& row : rows) {
    INFO(metric_name(row.metric));
    Drift drift;
    CHECK(drifting(drift).trend(row.metric).trend == Trend::stable);
    drift.*row.what = 0.8;
    CHECK(drifting(drift).trend(row.metric).trend == row.up);
    drift.*row.what = -0.8;
    const Monitor falling = drifting(drift);
    CHECK(falling.trend(row.metric).trend == row.down);
    for (std::size_t other = 0; other < kMetrics; ++other) {
      const bool moved = std::any_of(std::begin(rows), std::end(rows), [&](const auto& any) {
        return any.what == row.what && static_cast<std::size_t>(any.metric) == other;
      });
      if (!moved) CHECK(falling.trend(static_cast<Metric>(other)).trend == Trend::stable);
    }
  }
}

TEST_CASE("trend: too few samples are stable and say so") {
  Drift drift;
  drift.hits = -0.9;
  const TrendReport few = drifting(drift, 7).trend(Metric::hit_rate);
  CHECK(few.trend == Trend::stable);
  CHECK_FALSE(few.enough);
  CHECK(few.text == "Hit rate counts as stable: 7 samples of it in the window, 8 are needed.");
  const TrendReport enough = drifting(drift, 8).trend(Metric::hit_rate);
  CHECK(enough.enough);
  CHECK(enough.trend == Trend::degrading);
  CHECK(Monitor().trend(Metric::run_p99).samples == 0);
}

TEST_CASE("trend: the sentence has the numbers") {
  Drift drift;
  drift.hits = 0.8;
  const TrendReport report = drifting(drift).trend(Metric::hit_rate);
  CHECK(report.samples == 30);
  CHECK(report.first == doctest::Approx(0.513).epsilon(0.01));
  CHECK(report.last == doctest::Approx(0.9).epsilon(0.01));
  CHECK(report.text ==
        "Hit rate is improving: 51 % to 90 % over 2 minutes, 30 samples; changes up to 2.0 % count as none.");
}

TEST_CASE("trend: a change within the least one is none") {
  Drift drift;
  drift.hits = 0.03;  // 1.5 percentage points
  drift.run = 0.08;
  const Monitor monitor = drifting(drift);
  CHECK(monitor.trend(Metric::hit_rate).trend == Trend::stable);
  CHECK(monitor.trend(Metric::hit_rate).last > monitor.trend(Metric::hit_rate).first);
  drift.hits = 0.06;
  CHECK(drifting(drift).trend(Metric::hit_rate).trend == Trend::improving);
}

}  // namespace
}  // namespace kvant
