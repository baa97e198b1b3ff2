// Every rule of the monitor is driven to speak and, by one difference, to keep silent.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "monitor.hpp"
#include "monitor_rules.hpp"

namespace kvant {
namespace {

constexpr int kSteps = 60;  // of 10 s: the whole window

// A cache that nothing is to be said about.
CacheStats healthy() {
  CacheStats stats;
  stats.policy = "lru";
  stats.capacity_tokens = 8192;
  stats.page_tokens = 32;
  stats.pool.pool_bytes = 1 << 20;
  stats.pool.used_bytes = 900 << 10;
  stats.pool.total_pages = 256;
  stats.pool.used_pages = 200;
  stats.pool.index_pages = 50;
  stats.pool.tail_waste_tokens = 100;
  stats.layers = {{0, "q8_0", "q4_0", 0, 0, 0, {}}, {1, "q8_0", "nf4", 0, 0, 0, {}}};
  return stats;
}

// Changes the snapshot of step 0..kSteps; counters are cumulative.
using Change = std::function<void(CacheStats&, std::uint64_t step)>;

std::map<std::string, std::string> advice(const std::vector<Change>& changes, std::uint64_t steps = kSteps) {
  Monitor monitor;
  CacheStats stats = healthy();
  for (std::uint64_t step = 0; step <= steps; ++step) {
    stats.lookups.queries += 10;
    stats.lookups.queries_tokens += 1000;
    stats.lookups.hit_tokens += 700;
    stats[Operation::run].add(0.003);
    for (const Change& change : changes) change(stats, step);
    REQUIRE(monitor.observe(stats, 1000 + 10'000 * step));
  }
  std::map<std::string, std::string> result;
  for (const Recommendation& recommendation : monitor.recommendations())
    result.emplace(recommendation.rule, recommendation.text);
  return result;
}

// Hits fall from 70 % to about 40 %.
void fewer_hits(CacheStats& stats, std::uint64_t step) { stats.lookups.hit_tokens -= 5 * step; }
void only_few_hits(CacheStats& stats, std::uint64_t) { stats.lookups.hit_tokens -= 680; }
Change evicts(EvictionCause cause, std::uint64_t each) {
  return [=](CacheStats& stats, std::uint64_t) { stats.evictions[cause] += each; };
}
Change tier(TierStats each, std::uint64_t capacity) {
  return [=](CacheStats& stats, std::uint64_t step) {
    stats.tiers.resize(1);
    stats.tiers[0].name = "host";
    TierStats& now = stats.tiers[0].stats;
    now.gets = each.gets * step;
    now.hits = each.hits * step;
    now.puts = each.puts * step;
    now.evictions = each.evictions * step;
    now.corrupt = each.corrupt * step;
    now.errors = each.errors * step;
    now.capacity_bytes = capacity;
  };
}
TierStats tier_counts(std::uint64_t gets, std::uint64_t hits, std::uint64_t puts, std::uint64_t evictions) {
  TierStats stats;
  stats.gets = gets;
  stats.hits = hits;
  stats.puts = puts;
  stats.evictions = evictions;
  return stats;
}
TierStats tier_faults(std::uint64_t corrupt, std::uint64_t errors) {
  TierStats stats = tier_counts(10, 8, 0, 0);
  stats.corrupt = corrupt;
  stats.errors = errors;
  return stats;
}
Change pool(std::uint64_t PoolStats::*member, std::uint64_t value) {
  return [=](CacheStats& stats, std::uint64_t) { stats.pool.*member = value; };
}
// Layer 1's V has `error` where the other three have 0.001.
Change errors(double error, std::uint64_t rows) {
  return [=](CacheStats& stats, std::uint64_t) {
    stats.quantization = {{0, ErrorSide::k, 0.1, 100, rows},
                          {0, ErrorSide::v, 0.1, 100, rows},
                          {1, ErrorSide::k, 0.1, 100, rows},
                          {1, ErrorSide::v, error * 100, 100, rows}};
  };
}
Change error_grows(double growth) {
  return [=](CacheStats& stats, std::uint64_t step) {
    stats.quantization.resize(1);
    stats.quantization[0].samples += 1;
    stats.quantization[0].value_squares += 1;
    stats.quantization[0].error_squares += 0.001 * (1 + growth * static_cast<double>(step));
  };
}
Change run_takes(double first, double growth) {
  return [=](CacheStats& stats, std::uint64_t step) {
    for (int i = 0; i < 10; ++i) stats[Operation::run].add(first * std::pow(growth, static_cast<double>(step)));
  };
}
void adaptive(CacheStats& stats, std::uint64_t) { stats.policy = "adaptive"; }

struct Case {
  std::string rule;
  std::vector<Change> speaks, silent;
  std::vector<std::string> says;  // parts of the sentence
};

std::vector<Case> cases() {
  const Change evicted = evicts(EvictionCause::capacity, 32), expired = evicts(EvictionCause::expired, 40);
  return {
      {"hit_rate_fell_for_room",
       {fewer_hits, evicted},
       {fewer_hits},
       {"Hit rate fell from 66 % to 44 % over the last 10 minutes", "1,920 pages", "capacity_tokens above 8,192",
        "add a host tier"}},
      {"hit_rate_fell_for_room", {fewer_hits, evicted}, {evicted}, {}},
      {"hit_rate_fell_for_room",
       {fewer_hits, evicted, tier(tier_counts(1, 1, 0, 0), 0)},
       {fewer_hits, evicts(EvictionCause::cleared, 32)},
       {"enlarge tier \"host\""}},
      {"hit_rate_fell_by_expiry",
       {fewer_hits, expired, [](CacheStats& stats, std::uint64_t) { stats.ttl_ms = 30000; }},
       {fewer_hits, expired, evicts(EvictionCause::capacity, 41)},
       {"2,400 pages expired", "ttl_ms above 30,000"}},
      {"hit_rate_fell_by_expiry", {fewer_hits, expired}, {expired}, {"the TTL that sequences are given"}},
      {"limit_evicts",
       {evicts(EvictionCause::limit, 2), [](CacheStats& stats, std::uint64_t) { stats.limit_bytes = 3 << 29; }},
       {evicted},
       {"took 120 pages", "limit_bytes above 1.50 GiB"}},
      {"limit_evicts", {evicts(EvictionCause::limit, 2)}, {}, {"no limit any more"}},
      {"few_hits",
       {only_few_hits, evicted},
       {only_few_hits, evicted, adaptive},
       {"Only 2.0 % of 60,000 tokens", "policy \"lru\" evicted 1,920 pages", "\"adaptive\""}},
      {"few_hits", {only_few_hits, evicted}, {only_few_hits}, {}},
      {"few_hits", {only_few_hits, evicted}, {evicted}, {}},
      {"pool_full",
       {pool(&PoolStats::used_pages, 256), pool(&PoolStats::index_pages, 5)},
       {pool(&PoolStats::used_pages, 256), pool(&PoolStats::index_pages, 50)},
       {"Sequences hold 251 of 256 pages"}},
      {"pool_oversized",
       {pool(&PoolStats::used_pages, 20)},
       {pool(&PoolStats::used_pages, 64)},
       {"At most 7.8 % of the pool's pages", "now 8,192"}},
      {"pool_oversized",
       {pool(&PoolStats::used_pages, 20)},
       // Full for a short time only, but full.
       {[](CacheStats& stats, std::uint64_t step) { stats.pool.used_pages = step == 30 ? 200 : 20; }},
       {}},
      {"tail_waste",
       {pool(&PoolStats::tail_waste_tokens, 2000)},
       {pool(&PoolStats::tail_waste_tokens, 1600)},
       {"2,000 of 6,400 token slots", "fewer than 32 tokens"}},
      {"tail_waste",
       {pool(&PoolStats::tail_waste_tokens, 2000)},
       {pool(&PoolStats::tail_waste_tokens, 2000), [](CacheStats& stats, std::uint64_t) { stats.page_tokens = 16; }},
       {}},
      {"fragmented",
       {pool(&PoolStats::used_bytes, 512 << 10)},
       {pool(&PoolStats::used_bytes, 800 << 10)},
       {"50 % of the slabs, 512 KiB of 1.00 MiB"}},
      {"fragmented",
       {pool(&PoolStats::used_bytes, 512 << 10)},
       {pool(&PoolStats::used_bytes, 512 << 10), pool(&PoolStats::used_pages, 20)},
       {}},
      {"run_slower", {run_takes(0.004, 1.01)}, {run_takes(0.004, 1)}, {"rose from 4.", "ms to 7.", "(660 runs)"}},
      {"run_slower", {run_takes(0.004, 1.01)}, {run_takes(0.008, 0.99)}, {}},
      {"tier_misses",
       {tier(tier_counts(10, 0, 0, 0), 0)},
       {tier(tier_counts(10, 1, 0, 0), 0)},
       {"\"host\" found 0 of 600 entries (0.0 %)"}},
      {"tier_misses", {tier(tier_counts(10, 0, 0, 0), 0)}, {tier(tier_counts(1, 0, 0, 0), 0)}, {}},
      {"tier_churns",
       {tier(tier_counts(1, 1, 10, 5), 1 << 20)},
       {tier(tier_counts(1, 1, 10, 5), 1 << 21)},
       {"let 300 entries go for 600 puts", "it holds 1.00 MiB, the pool above it holds 1.00 MiB"}},
      {"tier_churns", {tier(tier_counts(1, 1, 10, 5), 1 << 20)}, {tier(tier_counts(1, 1, 10, 4), 1 << 20)}, {}},
      {"tier_corrupt",
       {tier(tier_faults(1, 0), 0)},
       {tier(tier_faults(0, 1), 0)},
       {"60 of 600 entries asked of tier \"host\""}},
      {"tier_errors",
       {tier(tier_faults(0, 2), 0)},
       {tier(tier_faults(1, 0), 0)},
       {"failed 120 times in 600 gets and 0 puts"}},
      {"layer_error",
       {errors(0.0045, 64)},
       {errors(0.0039, 64)},
       {"Layer 1's V in nf4", "0.0045 over 64 sampled rows", "median of 4 layers and sides is 0.0010"}},
      {"layer_error", {errors(0.0045, 64)}, {errors(0.0045, 15)}, {}},
      {"error_rising", {error_grows(0.02)}, {error_grows(0)}, {"rose from 0.0012 to 0.0021", "(60 sampled rows)"}},
      {"error_rising", {error_grows(0.02)}, {error_grows(-0.01)}, {}},
  };
}

TEST_CASE("monitor rules: nothing is said of a healthy cache") {
  const auto said = advice({});
  for (const auto& [rule, text] : said) MESSAGE(text);
  CHECK(said.empty());
}

TEST_CASE("monitor rules: each speaks on its condition and is silent without it") {
  std::set<std::string> driven;
  for (const Case& one : cases()) {
    const auto said = advice(one.speaks);
    INFO(one.rule);
    REQUIRE(said.contains(one.rule));
    const std::string& text = said.at(one.rule);
    INFO(text);
    for (const std::string& part : one.says) CHECK(text.find(part) != std::string::npos);
    CHECK(text.back() == '.');
    CHECK_FALSE(advice(one.silent).contains(one.rule));
    driven.insert(one.rule);
  }
  for (const MonitorRule& rule : monitor_rules()) {
    INFO(rule.name);
    CHECK(driven.contains(std::string(rule.name)));
  }
  CHECK(driven.size() == monitor_rules().size());
}

TEST_CASE("monitor rules: a trend needs samples, a fault does not") {
  const Change evicted = evicts(EvictionCause::capacity, 32);
  CHECK(advice({fewer_hits, evicted}, 8).empty() == false);
  CHECK(advice({[](CacheStats& stats, std::uint64_t step) { stats.lookups.hit_tokens -= 90 * step; }, evicted}, 7)
            .empty());
  CHECK(advice({tier(tier_faults(1, 0), 0)}, 1).contains("tier_corrupt"));
}

TEST_CASE("monitor rules: what happened before the window is over") {
  const Change early = [](CacheStats& stats, std::uint64_t step) {
    tier(tier_faults(1, 0), 0)(stats, step < 5 ? step : 5);
  };
  CHECK(advice({early}, 40).contains("tier_corrupt"));
  CHECK_FALSE(advice({early}, 70).contains("tier_corrupt"));
}

TEST_CASE("monitor rules: a tier is told from another of its kind by its place") {
  const auto said = advice({tier(tier_counts(10, 9, 0, 0), 1 << 22), [](CacheStats& stats, std::uint64_t step) {
                              stats.tiers.push_back({"disk", {}});
                              stats.tiers[1].stats.puts = 3 * step;
                              stats.tiers[1].stats.evictions = 2 * step;
                              stats.tiers[1].stats.capacity_bytes = 1 << 22;
                            }});
  REQUIRE(said.contains("tier_churns"));
  CHECK(said.at("tier_churns").find("Tier \"disk\"") == 0);
  CHECK(said.at("tier_churns").find("tier \"host\" above it holds 4.00 MiB") != std::string::npos);
}

}  // namespace
}  // namespace kvant
