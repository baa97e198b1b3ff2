// The rules. Each names the numbers that it saw and the setting to change. Thresholds are here and in
// docs/monitoring.md.
#include "monitor_rules.hpp"

#include <algorithm>

#include "number_text.hpp"

namespace kvant {
namespace {

constexpr std::uint64_t kFewPages = 16;     // evictions, puts: fewer are no pattern
constexpr std::uint64_t kFewQueries = 100;  // lookups, gets
constexpr std::uint64_t kFewRows = 16;      // sampled for a quantization error

double ratio(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string quoted(std::string_view name) { return '"' + std::string(name) + '"'; }

std::string over_window(const MonitorFacts& facts) { return "over the last " + duration_text(facts.whole.seconds()); }
std::string in_window(const MonitorFacts& facts) { return "in the last " + duration_text(facts.whole.seconds()); }

// "from 72 % to 41 % over the last 10 minutes": whole quarters of the window, not the trend's line.
std::string fall_text(const MonitorFacts& facts) {
  return "Hit rate fell from " + percent_text(*facts.early.lookups.hit_rate()) + " to " +
         percent_text(*facts.late.lookups.hit_rate()) + ' ' + over_window(facts);
}

bool hit_rate_fell(const MonitorFacts& facts) {
  const std::optional<double> early = facts.early.lookups.hit_rate(), late = facts.late.lookups.hit_rate();
  return facts.trend(Metric::hit_rate) == Trend::degrading && early && late && *late < *early;
}

std::string more_room(const MonitorFacts& facts) {
  std::string text = "raise capacity_tokens above " + count_text(facts.now->capacity_tokens) + " or ";
  return text +
         (facts.now->tiers.empty() ? "add a host tier." : "enlarge tier " + quoted(facts.now->tiers.back().name) + '.');
}

bool fell_for_room(const MonitorFacts& facts) {
  const EvictionCounters& evictions = facts.whole.evictions;
  return hit_rate_fell(facts) && evictions[EvictionCause::capacity] >= kFewPages &&
         evictions[EvictionCause::capacity] >= evictions[EvictionCause::expired];
}
std::string fell_for_room_text(const MonitorFacts& facts) {
  return fall_text(facts) + " while " + count_text(facts.whole.evictions[EvictionCause::capacity]) +
         " pages were evicted for lack of room: " + more_room(facts);
}

bool fell_by_expiry(const MonitorFacts& facts) {
  const EvictionCounters& evictions = facts.whole.evictions;
  return hit_rate_fell(facts) && evictions[EvictionCause::expired] >= kFewPages &&
         evictions[EvictionCause::expired] > evictions[EvictionCause::capacity];
}
std::string fell_by_expiry_text(const MonitorFacts& facts) {
  std::string text =
      fall_text(facts) + " while " + count_text(facts.whole.evictions[EvictionCause::expired]) + " pages expired";
  if (facts.now->ttl_ms == 0) return text + ": raise the TTL that sequences are given.";
  return text + ": raise ttl_ms above " + count_text(facts.now->ttl_ms) + '.';
}

bool limit_evicts(const MonitorFacts& facts) { return facts.whole.evictions[EvictionCause::limit] >= kFewPages; }
std::string limit_evicts_text(const MonitorFacts& facts) {
  std::string text = "The memory limit took " + count_text(facts.whole.evictions[EvictionCause::limit]) + " pages " +
                     in_window(facts) + ": ";
  if (facts.now->limit_bytes > 0)
    return text + "raise limit_bytes above " + bytes_text(facts.now->limit_bytes) +
           " or convert layers to a narrower format.";
  return text + "there is no limit any more; prefixes will be computed anew.";
}

bool few_hits(const MonitorFacts& facts) {
  const std::optional<double> rate = facts.whole.lookups.hit_rate();
  return facts.now->policy != "adaptive" && facts.whole.lookups.queries >= kFewQueries && rate && *rate < 0.05 &&
         facts.whole.evictions[EvictionCause::capacity] >= kFewPages;
}
std::string few_hits_text(const MonitorFacts& facts) {
  const LookupCounters& lookups = facts.whole.lookups;
  return "Only " + percent_text(*lookups.hit_rate()) + " of " + count_text(lookups.queries_tokens) +
         " tokens asked for were found " + in_window(facts) + " while policy " + quoted(facts.now->policy) +
         " evicted " + count_text(facts.whole.evictions[EvictionCause::capacity]) +
         " pages: try policy \"adaptive\", which keeps pages used once from displacing others.";
}

// Pages that something besides the prefix index holds.
std::uint64_t held_pages(const PoolStats& pool) {
  return pool.used_pages - std::min(pool.used_pages, pool.index_pages);
}

bool pool_full(const MonitorFacts& facts) {
  const PoolStats& pool = facts.now->pool;
  return pool.total_pages > 0 && ratio(held_pages(pool), pool.total_pages) >= 0.95;
}
std::string pool_full_text(const MonitorFacts& facts) {
  const PoolStats& pool = facts.now->pool;
  return "Sequences hold " + count_text(held_pages(pool)) + " of " + count_text(pool.total_pages) +
         " pages, so that hardly any prefix can stay and new sequences may be refused: " + more_room(facts);
}

bool pool_oversized(const MonitorFacts& facts) {
  return facts.enough && facts.now->pool.pool_bytes > 0 && facts.most_used < 0.25 && facts.whole.evictions.total() == 0;
}
std::string pool_oversized_text(const MonitorFacts& facts) {
  return "At most " + percent_text(facts.most_used) + " of the pool's pages were in use " + over_window(facts) +
         " and none was evicted: capacity_tokens, now " + count_text(facts.now->capacity_tokens) + ", may be halved.";
}

bool tail_waste(const MonitorFacts& facts) {
  const std::uint64_t slots = facts.now->pool.used_pages * facts.now->page_tokens;
  return facts.now->page_tokens > 16 && facts.now->pool.used_pages >= kFewPages &&
         ratio(facts.now->pool.tail_waste_tokens, slots) > 0.25;
}
std::string tail_waste_text(const MonitorFacts& facts) {
  const PoolStats& pool = facts.now->pool;
  return count_text(pool.tail_waste_tokens) + " of " + count_text(pool.used_pages * facts.now->page_tokens) +
         " token slots in use are the empty ends of open pages: make the cache with pages of fewer than " +
         count_text(facts.now->page_tokens) + " tokens.";
}

bool fragmented(const MonitorFacts& facts) {
  const PoolStats& pool = facts.now->pool;
  // An oversized pool has its own rule.
  return facts.enough && facts.most_used >= 0.25 && pool.fragmentation() > 0.3;
}
std::string fragmented_text(const MonitorFacts& facts) {
  const PoolStats& pool = facts.now->pool;
  return percent_text(pool.fragmentation()) + " of the slabs, " + bytes_text(pool.pool_bytes - pool.used_bytes) +
         " of " + bytes_text(pool.pool_bytes) + ", holds no page in use: resize the cache to give slabs back.";
}

bool run_slower(const MonitorFacts& facts) {
  return facts.trend(Metric::run_p99) == Trend::degrading && facts.early.run.count() > 0 &&
         facts.late.run.count() > 0 && facts.late.run.quantile(0.99) > facts.early.run.quantile(0.99);
}
std::string run_slower_text(const MonitorFacts& facts) {
  return "The 99th percentile of run rose from " + duration_text(facts.early.run.quantile(0.99)) + " to " +
         duration_text(facts.late.run.quantile(0.99)) + ' ' + over_window(facts) + " (" +
         count_text(facts.whole.run.count()) +
         " runs): longer sequences cost more; shorten them by a window or convert layers to a narrower format.";
}

// The first tier of the window for which `test` holds; null: none.
template <typename Test>
const TierInterval* find_tier(const MonitorFacts& facts, Test test) {
  const std::vector<TierInterval>& tiers = facts.whole.tiers;
  for (std::size_t i = 0; i < tiers.size(); ++i)
    if (test(tiers[i], i)) return &tiers[i];
  return nullptr;
}

std::uint64_t capacity_of(const MonitorFacts& facts, std::size_t place) {
  return place < facts.now->tiers.size() ? facts.now->tiers[place].stats.capacity_bytes : 0;
}

const TierInterval* missing_tier(const MonitorFacts& facts) {
  return find_tier(facts, [](const TierInterval& tier, std::size_t) {
    return tier.gets >= kFewQueries && ratio(tier.hits, tier.gets) < 0.1;
  });
}
std::string tier_misses_text(const MonitorFacts& facts) {
  const TierInterval& tier = *missing_tier(facts);
  return "Tier " + quoted(tier.name) + " found " + count_text(tier.hits) + " of " + count_text(tier.gets) +
         " entries (" + percent_text(ratio(tier.hits, tier.gets)) + ") asked of it " + in_window(facts) +
         ": enlarge it or take it out.";
}

// A tier no larger than what is above it holds little else than that, and lets most go before it is asked for.
const TierInterval* churning_tier(const MonitorFacts& facts) {
  return find_tier(facts, [&](const TierInterval& tier, std::size_t place) {
    const std::uint64_t above = place == 0 ? facts.now->pool.pool_bytes : capacity_of(facts, place - 1);
    const std::uint64_t capacity = capacity_of(facts, place);
    return capacity > 0 && capacity <= above && tier.puts >= kFewPages && 2 * tier.evictions >= tier.puts;
  });
}
std::string tier_churns_text(const MonitorFacts& facts) {
  const TierInterval& tier = *churning_tier(facts);
  const auto place = static_cast<std::size_t>(&tier - facts.whole.tiers.data());
  const std::string above = place == 0 ? "the pool above it holds " + bytes_text(facts.now->pool.pool_bytes)
                                       : "tier " + quoted(facts.whole.tiers[place - 1].name) + " above it holds " +
                                             bytes_text(capacity_of(facts, place - 1));
  return "Tier " + quoted(tier.name) + " let " + count_text(tier.evictions) + " entries go for " +
         count_text(tier.puts) + " puts " + in_window(facts) + ": it holds " + bytes_text(capacity_of(facts, place)) +
         ", " + above + "; a tier must be larger than what is above it.";
}

const TierInterval* corrupt_tier(const MonitorFacts& facts) {
  return find_tier(facts, [](const TierInterval& tier, std::size_t) { return tier.corrupt > 0; });
}
std::string tier_corrupt_text(const MonitorFacts& facts) {
  const TierInterval& tier = *corrupt_tier(facts);
  return count_text(tier.corrupt) + " of " + count_text(tier.gets) + " entries asked of tier " + quoted(tier.name) +
         ' ' + in_window(facts) +
         " were not what was stored and counted as misses: check its medium, and what else writes there.";
}

const TierInterval* failing_tier(const MonitorFacts& facts) {
  return find_tier(facts, [](const TierInterval& tier, std::size_t) { return tier.errors > 0; });
}
std::string tier_errors_text(const MonitorFacts& facts) {
  const TierInterval& tier = *failing_tier(facts);
  return "Tier " + quoted(tier.name) + " failed " + count_text(tier.errors) +
         (tier.errors == 1 ? " time in " : " times in ") + count_text(tier.gets) + " gets and " +
         count_text(tier.puts) + " puts " + in_window(facts) +
         ": check that its medium has room and its servers answer.";
}

// The layer and side of the largest error among those with enough rows, and the median of them.
struct WorstError {
  const QuantizationError* error = nullptr;
  double mse = 0, median = 0;
  std::size_t compared = 0;
};
WorstError worst_error(const MonitorFacts& facts) {
  WorstError worst;
  std::vector<double> errors;
  for (const QuantizationError& error : facts.now->quantization) {
    const std::optional<double> mse = error.relative_mse();
    if (!mse || error.samples < kFewRows) continue;
    errors.push_back(*mse);
    if (worst.error != nullptr && *mse <= worst.mse) continue;
    worst.error = &error;
    worst.mse = *mse;
  }
  worst.compared = errors.size();
  if (errors.empty()) return worst;
  const auto middle = errors.begin() + static_cast<std::ptrdiff_t>((errors.size() - 1) / 2);
  std::nth_element(errors.begin(), middle, errors.end());
  worst.median = *middle;
  return worst;
}
bool layer_error(const MonitorFacts& facts) {
  const WorstError worst = worst_error(facts);
  return worst.compared >= 4 && worst.mse > 1e-4 && worst.mse > 4 * worst.median;
}
std::string layer_error_text(const MonitorFacts& facts) {
  const WorstError worst = worst_error(facts);
  std::string text =
      "Layer " + std::to_string(worst.error->layer) + "'s " + (worst.error->side == ErrorSide::k ? "K" : "V");
  for (const LayerStats& layer : facts.now->layers)
    if (layer.layer == worst.error->layer)
      text += " in " + (worst.error->side == ErrorSide::k ? layer.format_k : layer.format_v);
  return text + " has a relative squared error of " + decimal_text(worst.mse) + " over " +
         count_text(worst.error->samples) + " sampled rows, where the median of " + count_text(worst.compared) +
         " layers and sides is " + decimal_text(worst.median) + ": give it a wider format.";
}

bool error_rising(const MonitorFacts& facts) {
  const std::optional<double> early = facts.early.quantization_error(), late = facts.late.quantization_error();
  return facts.trend(Metric::quantization_error) == Trend::degrading && early && late && *late > *early;
}
std::string error_rising_text(const MonitorFacts& facts) {
  return "The relative squared error of quantization rose from " + decimal_text(*facts.early.quantization_error()) +
         " to " + decimal_text(*facts.late.quantization_error()) + ' ' + over_window(facts) + " (" +
         count_text(facts.whole.error_samples) +
         " sampled rows): take wider formats, or rotation, before answers suffer.";
}

constexpr MonitorRule kRules[] = {
    {"hit_rate_fell_for_room", fell_for_room, fell_for_room_text},
    {"hit_rate_fell_by_expiry", fell_by_expiry, fell_by_expiry_text},
    {"limit_evicts", limit_evicts, limit_evicts_text},
    {"few_hits", few_hits, few_hits_text},
    {"pool_full", pool_full, pool_full_text},
    {"pool_oversized", pool_oversized, pool_oversized_text},
    {"tail_waste", tail_waste, tail_waste_text},
    {"fragmented", fragmented, fragmented_text},
    {"run_slower", run_slower, run_slower_text},
    {"tier_misses", [](const MonitorFacts& facts) { return missing_tier(facts) != nullptr; }, tier_misses_text},
    {"tier_churns", [](const MonitorFacts& facts) { return churning_tier(facts) != nullptr; }, tier_churns_text},
    {"tier_corrupt", [](const MonitorFacts& facts) { return corrupt_tier(facts) != nullptr; }, tier_corrupt_text},
    {"tier_errors", [](const MonitorFacts& facts) { return failing_tier(facts) != nullptr; }, tier_errors_text},
    {"layer_error", layer_error, layer_error_text},
    {"error_rising", error_rising, error_rising_text},
};

}  // namespace

std::span<const MonitorRule> monitor_rules() { return kRules; }

}  // namespace kvant
