// Intervals, their merging, and what the bounded history keeps.
#include <doctest/doctest.h>

#include "host_random.hpp"
#include "monitor.hpp"
#include "number_text.hpp"

namespace kvant {
namespace {

// A cache's life at random: snapshots a second apart, counters that only rise.
std::vector<CacheStats> random_life(std::size_t count, test::Random& random) {
  std::vector<CacheStats> life;
  CacheStats stats;
  stats.pool.total_pages = 100;
  stats.tiers = {{"host", {}}, {"disk", {}}};
  stats.quantization.resize(2);
  stats.quantization[1].side = ErrorSide::v;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t asked = random.below(500);
    stats.lookups.queries_tokens += asked;
    stats.lookups.hit_tokens += random.below(asked + 1);
    ++stats.lookups.queries;
    stats.evictions.pages[random.below(kEvictionCauses)] += random.below(50);
    for (std::uint32_t n = random.below(4); n > 0; --n) stats[Operation::run].add(1e-4 * random.between(1, 5000));
    for (NamedTierStats& tier : stats.tiers) {
      tier.stats.gets += 5;
      tier.stats.hits += random.below(6);
      tier.stats.puts += random.below(6);
    }
    for (QuantizationError& error : stats.quantization) {
      error.samples += 1;
      error.error_squares += 0.25 * random.below(8);  // exact in binary, so that sums are
      error.value_squares += 16;
    }
    stats.pool.used_pages = random.below(101);
    life.push_back(stats);
  }
  return life;
}

void check_same(const Interval& a, const Interval& b) {
  CHECK(a.start_ms == b.start_ms);
  CHECK(a.end_ms == b.end_ms);
  CHECK(a.lookups.queries_tokens == b.lookups.queries_tokens);
  CHECK(a.lookups.hit_tokens == b.lookups.hit_tokens);
  CHECK(a.lookups.queries == b.lookups.queries);
  CHECK(a.evictions.pages == b.evictions.pages);
  CHECK(a.run.count() == b.run.count());
  for (std::size_t i = 0; i < LatencyHistogram::kBuckets; ++i) REQUIRE(a.run.count(i) == b.run.count(i));
  REQUIRE(a.tiers.size() == b.tiers.size());
  for (std::size_t i = 0; i < a.tiers.size(); ++i) {
    CHECK(a.tiers[i].gets == b.tiers[i].gets);
    CHECK(a.tiers[i].hits == b.tiers[i].hits);
    CHECK(a.tiers[i].puts == b.tiers[i].puts);
  }
  CHECK(a.quantization_error() == b.quantization_error());
  CHECK(a.error_samples == b.error_samples);
}

TEST_CASE("monitor: a merged interval is what one snapshot less would have given") {
  test::Random random(11);
  const std::vector<CacheStats> life = random_life(1000, random);
  MonitorHistory history(32);
  for (std::size_t i = 1; i < life.size(); ++i) {
    history.add(interval_between(life[i - 1], 1000 * (i - 1), life[i], 1000 * i));
    REQUIRE(history.intervals().size() <= 32);
  }
  std::uint64_t time = 0;
  for (const Interval& interval : history.intervals()) {
    REQUIRE(interval.start_ms == time);  // no gap
    time = interval.end_ms;
    check_same(interval, interval_between(life[interval.start_ms / 1000], interval.start_ms, life[time / 1000], time));
    double used = 0;
    for (std::size_t i = interval.start_ms / 1000 + 1; i <= time / 1000; ++i) used += life[i].pool.used_share();
    CHECK(interval.used_share == doctest::Approx(used / interval.seconds()));
  }
  CHECK(time == 999'000);
}

TEST_CASE("monitor: the younger half stays as it came, older intervals are longer") {
  MonitorHistory history(32);
  for (std::uint64_t i = 0; i < 5000; ++i) {
    Interval interval;
    interval.start_ms = i;
    interval.end_ms = i + 1;
    history.add(interval);
    const std::vector<Interval>& kept = history.intervals();
    REQUIRE(kept.front().start_ms == 0);
    REQUIRE(kept.back().end_ms == i + 1);
    std::uint64_t longest = UINT64_MAX;
    for (std::size_t k = 0; k < kept.size(); ++k) {
      const std::uint64_t length = kept[k].end_ms - kept[k].start_ms;
      REQUIRE(length <= longest);
      longest = length;
      if (k + 16 >= kept.size()) REQUIRE(length == 1);
    }
  }
}

TEST_CASE("monitor: samples are rates of their interval") {
  Monitor monitor;
  CacheStats stats;
  stats.lookups = {1000, 900, 10, 9};
  stats.pool.total_pages = 10;
  CHECK(monitor.observe(stats, 5000));
  CHECK(monitor.samples().empty());
  CHECK_FALSE(monitor.observe(stats, 5000));
  CHECK_FALSE(monitor.observe(stats, 4000));
  stats.lookups = {1200, 950, 12, 10};
  stats.evictions.pages = {4, 3, 100, 1};  // 100 were cleared on request
  stats.pool.used_pages = 5;
  for (int i = 0; i < 100; ++i) stats[Operation::run].add(i < 90 ? 0.001 : 0.1);
  CHECK(monitor.observe(stats, 7000));
  REQUIRE(monitor.samples().size() == 1);
  const MonitorSample sample = monitor.samples()[0];
  CHECK(sample.start_ms == 5000);
  CHECK(sample.time_ms == 7000);
  CHECK(*sample.hit_rate == 0.25);
  CHECK(sample.evictions_per_s == 4);
  CHECK(sample.used_share == 0.5);
  CHECK(*sample.run_p50 == doctest::Approx(0.001).epsilon(LatencyHistogram::kRelativeError));
  CHECK(*sample.run_p99 == doctest::Approx(0.1).epsilon(LatencyHistogram::kRelativeError));
  CHECK_FALSE(sample.tier_hit_rate);
  CHECK_FALSE(sample.quantization_error);
  CHECK(monitor.observe(stats, 8000));
  CHECK_FALSE(monitor.samples()[1].hit_rate);  // nothing was asked for
  CHECK_FALSE(monitor.samples()[1].run_p99);
}

TEST_CASE("monitor: counters that fall are another cache's, and count from 0") {
  CacheStats before, after;
  before.lookups = {1000, 900, 10, 9};
  before.tiers = {{"host", {}}};
  before.tiers[0].stats.gets = 50;
  after.lookups = {100, 30, 20, 3};  // more queries than before, but fewer tokens
  after.tiers = {{"host", {}}};
  after.tiers[0].stats.gets = 60;
  const Interval other = interval_between(before, 0, after, 1000);
  CHECK(other.lookups.queries == 20);
  CHECK(*other.lookups.hit_rate() == 0.3);
  CHECK(other.tiers[0].gets == 60);
  // A tier alone may be another one.
  after.lookups = {1100, 950, 20, 10};
  CHECK(interval_between(before, 0, after, 1000).tiers[0].gets == 10);
  after.tiers[0].name = "disk";
  CHECK(interval_between(before, 0, after, 1000).tiers[0].gets == 60);
  after.tiers[0] = {"host", {}};
  after.tiers[0].stats.gets = 20;
  CHECK(interval_between(before, 0, after, 1000).tiers[0].gets == 20);
  CHECK(interval_between(before, 0, after, 1000).lookups.queries == 10);
}

TEST_CASE("monitor: numbers in sentences") {
  CHECK(count_text(0) == "0");
  CHECK(count_text(999) == "999");
  CHECK(count_text(1930) == "1,930");
  CHECK(count_text(18446744073709551615u) == "18,446,744,073,709,551,615");
  CHECK(decimal_text(0) == "0.00");
  CHECK(decimal_text(0.0123) == "0.0123");
  CHECK(decimal_text(1.234) == "1.23");
  CHECK(decimal_text(99.96) == "100");
  CHECK(decimal_text(12345.6) == "12,346");
  CHECK(decimal_text(-1234) == "-1,234");
  CHECK(decimal_text(1.23e-9) == "1.2e-09");
  CHECK(percent_text(0.41) == "41 %");
  CHECK(percent_text(0.021) == "2.1 %");
  CHECK(percent_text(1) == "100 %");
  CHECK(bytes_text(1023) == "1023 bytes");
  CHECK(bytes_text(1536) == "1.50 KiB");
  CHECK(bytes_text(1u << 30) == "1.00 GiB");
  CHECK(duration_text(600) == "10 minutes");
  CHECK(duration_text(45) == "45.0 s");
  CHECK(duration_text(7200) == "2.00 hours");
  CHECK(duration_text(0.0031) == "3.10 ms");
  CHECK(duration_text(2e-6) == "2.00 us");
}

}  // namespace
}  // namespace kvant
