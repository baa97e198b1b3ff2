// The latency histogram beside sorted values.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "histogram.hpp"
#include "host_random.hpp"

namespace kvant {
namespace {

double exact_quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double rank = std::max(1.0, std::ceil(q * static_cast<double>(values.size())));
  return values[static_cast<std::size_t>(rank) - 1];
}

bool same(const LatencyHistogram& a, const LatencyHistogram& b) {
  for (std::size_t i = 0; i < LatencyHistogram::kBuckets; ++i)
    if (a.count(i) != b.count(i)) return false;
  return a.count() == b.count() && a.sum() == doctest::Approx(b.sum());
}

TEST_CASE("histogram: bounds grow by a quarter of an octave, and whole octaves are exact") {
  CHECK(LatencyHistogram::bound(0) == 1e-6);
  for (std::size_t i = 1; i < LatencyHistogram::kBounds; ++i) {
    const double step = LatencyHistogram::bound(i) / LatencyHistogram::bound(i - 1);
    CHECK(step == doctest::Approx(std::exp2(0.25)).epsilon(1e-12));
    if (i % LatencyHistogram::kPerOctave == 0)
      CHECK(LatencyHistogram::bound(i) == std::ldexp(1e-6, static_cast<int>(i / LatencyHistogram::kPerOctave)));
  }
  CHECK(LatencyHistogram::bound(LatencyHistogram::kBounds - 1) >= 100);
}

TEST_CASE("histogram: a bound belongs to its bucket, what is above it to the next") {
  for (std::size_t i = 0; i < LatencyHistogram::kBounds; ++i) {
    LatencyHistogram histogram;
    histogram.add(LatencyHistogram::bound(i));
    CHECK(histogram.count(i) == 1);
    histogram.add(std::nextafter(LatencyHistogram::bound(i), 1e9));
    CHECK(histogram.count(i + 1) == 1);
  }
}

TEST_CASE("histogram: quantiles are within the documented error") {
  CHECK(LatencyHistogram::kRelativeError >= std::exp2(0.125) - 1);
  test::Random random(5);
  for (int round = 0; round < 50; ++round) {
    LatencyHistogram histogram;
    std::vector<double> values;
    const std::uint32_t count = random.between(1, 400);
    for (std::uint32_t i = 0; i < count; ++i) {
      values.push_back(1e-6 * std::pow(10.0, random.below(8000) / 1000.0));
      histogram.add(values.back());
    }
    for (const double q : {0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0}) {
      const double exact = exact_quantile(values, q);
      CHECK(std::abs(histogram.quantile(q) - exact) <= LatencyHistogram::kRelativeError * exact);
    }
    CHECK(histogram.count() == count);
    CHECK(histogram.greatest() == *std::max_element(values.begin(), values.end()));
    CHECK(histogram.least() == *std::min_element(values.begin(), values.end()));
  }
}

TEST_CASE("histogram: one value is read back exactly, no value as 0") {
  LatencyHistogram histogram;
  CHECK(histogram.quantile(0.5) == 0);
  CHECK(histogram.greatest() == 0);
  histogram.add(0.0123);
  for (const double q : {-1.0, 0.0, 0.5, 1.0, 7.0, std::nan("")}) CHECK(histogram.quantile(q) == 0.0123);
}

TEST_CASE("histogram: broken clocks are counted and spoil nothing") {
  LatencyHistogram histogram;
  for (const double value : {-1.0, std::nan(""), -std::numeric_limits<double>::infinity(), 0.0}) histogram.add(value);
  CHECK(histogram.count(0) == 4);
  CHECK(histogram.sum() == 0);
  histogram.add(std::numeric_limits<double>::infinity());
  CHECK(histogram.count() == 5);
  CHECK(histogram.count(LatencyHistogram::kBuckets - 1) == 1);
  CHECK(histogram.sum() == 1e9);
  CHECK(histogram.quantile(1) == 1e9);
}

TEST_CASE("histogram: merging is adding, since() takes it back") {
  test::Random random(6);
  LatencyHistogram first, second, both;
  for (int i = 0; i < 500; ++i) {
    const double value = 1e-7 * std::pow(10.0, random.below(10000) / 1000.0);
    (i % 3 == 0 ? first : second).add(value);
    both.add(value);
  }
  LatencyHistogram merged = first;
  merged.merge(second);
  CHECK(same(merged, both));
  CHECK(merged.least() == both.least());
  CHECK(merged.greatest() == both.greatest());
  CHECK(same(merged.since(first), second));
  CHECK(merged.since(merged).count() == 0);
  CHECK(merged.since(merged).quantile(0.5) == 0);
  CHECK(same(first.since(both), first));  // both is no former state of it
  LatencyHistogram none;
  merged.merge(none);
  CHECK(same(merged, both));
  none.merge(both);
  CHECK(none.least() == both.least());
}

}  // namespace
}  // namespace kvant
