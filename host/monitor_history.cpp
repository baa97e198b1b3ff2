// Differences of snapshots, and the merging of old ones.
#include "monitor_history.hpp"

#include <algorithm>

namespace kvant {
namespace {

LookupCounters since(const LookupCounters& now, const LookupCounters& before) {
  return {now.queries_tokens - before.queries_tokens, now.hit_tokens - before.hit_tokens, now.queries - before.queries,
          now.hits - before.hits};
}

bool fell(const LookupCounters& now, const LookupCounters& before) {
  return now.queries_tokens < before.queries_tokens || now.hit_tokens < before.hit_tokens ||
         now.queries < before.queries || now.hits < before.hits;
}

bool fell(const EvictionCounters& now, const EvictionCounters& before) {
  for (std::size_t i = 0; i < kEvictionCauses; ++i)
    if (now.pages[i] < before.pages[i]) return true;
  return false;
}

bool fell(const TierStats& now, const TierStats& before) {
  return now.gets < before.gets || now.hits < before.hits || now.puts < before.puts || now.rejected < before.rejected ||
         now.evictions < before.evictions || now.corrupt < before.corrupt || now.errors < before.errors;
}

TierInterval tier_since(const NamedTierStats& now, const TierStats& before) {
  return {now.name,
          now.stats.gets - before.gets,
          now.stats.hits - before.hits,
          now.stats.puts - before.puts,
          now.stats.rejected - before.rejected,
          now.stats.evictions - before.evictions,
          now.stats.corrupt - before.corrupt,
          now.stats.errors - before.errors};
}

void add_tier(TierInterval& whole, const TierInterval& next) {
  whole.gets += next.gets;
  whole.hits += next.hits;
  whole.puts += next.puts;
  whole.rejected += next.rejected;
  whole.evictions += next.evictions;
  whole.corrupt += next.corrupt;
  whole.errors += next.errors;
}

// Each sum by itself: samples are taken on request, and a layer's start anew when its format changes.
void add_errors(Interval& interval, const CacheStats& before, const CacheStats& after) {
  for (const QuantizationError& now : after.quantization) {
    const auto same = std::find_if(
        before.quantization.begin(), before.quantization.end(),
        [&](const QuantizationError& other) { return other.layer == now.layer && other.side == now.side; });
    QuantizationError old;
    if (same != before.quantization.end() && same->samples <= now.samples && same->error_squares <= now.error_squares &&
        same->value_squares <= now.value_squares)
      old = *same;
    interval.error_squares += now.error_squares - old.error_squares;
    interval.value_squares += now.value_squares - old.value_squares;
    interval.error_samples += now.samples - old.samples;
  }
}

}  // namespace

double Interval::evictions_per_s() const {
  if (end_ms <= start_ms) return 0;
  return static_cast<double>(evictions.total() - evictions[EvictionCause::cleared]) / seconds();
}

std::optional<double> Interval::tier_hit_rate() const {
  std::uint64_t gets = 0, hits = 0;
  for (const TierInterval& tier : tiers) {
    gets += tier.gets;
    hits += tier.hits;
  }
  if (gets == 0) return std::nullopt;
  return static_cast<double>(hits) / static_cast<double>(gets);
}

std::optional<double> Interval::quantization_error() const {
  return QuantizationError{0, ErrorSide::k, error_squares, value_squares, error_samples}.relative_mse();
}

Interval interval_between(const CacheStats& before, std::uint64_t before_ms, const CacheStats& after,
                          std::uint64_t after_ms) {
  const LatencyHistogram& run = after[Operation::run];
  const bool other = fell(after.lookups, before.lookups) || fell(after.evictions, before.evictions) ||
                     run.count() < before[Operation::run].count();
  const CacheStats from = other ? CacheStats{} : before;

  Interval interval;
  interval.start_ms = before_ms;
  interval.end_ms = after_ms;
  interval.lookups = since(after.lookups, from.lookups);
  for (std::size_t i = 0; i < kEvictionCauses; ++i)
    interval.evictions.pages[i] = after.evictions.pages[i] - from.evictions.pages[i];
  interval.run = run.since(from[Operation::run]);
  for (std::size_t i = 0; i < after.tiers.size(); ++i) {
    const NamedTierStats& now = after.tiers[i];
    const bool known = i < from.tiers.size() && from.tiers[i].name == now.name && !fell(now.stats, from.tiers[i].stats);
    interval.tiers.push_back(tier_since(now, known ? from.tiers[i].stats : TierStats{}));
  }
  add_errors(interval, from, after);
  interval.used_share = after.pool.used_share();
  return interval;
}

void append_interval(Interval& whole, const Interval& next) {
  const double before = whole.seconds(), after = next.seconds();
  if (before + after > 0) whole.used_share = (whole.used_share * before + next.used_share * after) / (before + after);
  whole.end_ms = next.end_ms;
  whole.lookups.queries_tokens += next.lookups.queries_tokens;
  whole.lookups.hit_tokens += next.lookups.hit_tokens;
  whole.lookups.queries += next.lookups.queries;
  whole.lookups.hits += next.lookups.hits;
  for (std::size_t i = 0; i < kEvictionCauses; ++i) whole.evictions.pages[i] += next.evictions.pages[i];
  whole.run.merge(next.run);
  std::vector<TierInterval> tiers = next.tiers;
  for (std::size_t i = 0; i < tiers.size() && i < whole.tiers.size(); ++i)
    if (tiers[i].name == whole.tiers[i].name) add_tier(tiers[i], whole.tiers[i]);
  whole.tiers = std::move(tiers);
  whole.error_squares += next.error_squares;
  whole.value_squares += next.value_squares;
  whole.error_samples += next.error_samples;
}

MonitorHistory::MonitorHistory(std::size_t capacity) : capacity_(std::max<std::size_t>(16, capacity)) {}

void MonitorHistory::add(Interval interval) {
  if (intervals_.size() == capacity_) {
    const std::size_t old = capacity_ / 2 / 2 * 2;  // whole pairs
    std::vector<Interval> kept;
    kept.reserve(capacity_);
    for (std::size_t i = 0; i < old; i += 2) {
      kept.push_back(std::move(intervals_[i]));
      append_interval(kept.back(), intervals_[i + 1]);
    }
    for (std::size_t i = old; i < intervals_.size(); ++i) kept.push_back(std::move(intervals_[i]));
    intervals_ = std::move(kept);
  }
  intervals_.push_back(std::move(interval));
}

}  // namespace kvant
