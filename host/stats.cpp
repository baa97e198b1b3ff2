// Rates and names of the statistics.
#include "stats.hpp"

#include <numeric>

namespace kvant {
namespace {

double share(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

std::optional<double> LookupCounters::hit_rate() const {
  if (queries_tokens == 0) return std::nullopt;
  return share(hit_tokens, queries_tokens);
}

std::string_view eviction_cause_name(EvictionCause cause) {
  static constexpr std::array<std::string_view, kEvictionCauses> kNames = {"capacity", "expired", "cleared", "limit"};
  const auto index = static_cast<std::size_t>(cause);
  return index < kNames.size() ? kNames[index] : "unknown";
}

std::uint64_t EvictionCounters::total() const { return std::accumulate(pages.begin(), pages.end(), std::uint64_t{0}); }

std::string_view operation_name(Operation operation) {
  static constexpr std::array<std::string_view, kOperations> kNames = {"plan",  "run",  "commit", "lookup",
                                                                       "store", "load", "convert"};
  const auto index = static_cast<std::size_t>(operation);
  return index < kNames.size() ? kNames[index] : "unknown";
}

double PoolStats::fragmentation() const {
  return used_bytes >= pool_bytes ? 0 : share(pool_bytes - used_bytes, pool_bytes);
}

double PoolStats::used_share() const { return share(used_pages, total_pages); }

std::optional<double> QuantizationError::relative_mse() const {
  if (samples == 0 || !(value_squares > 0)) return std::nullopt;
  return error_squares / value_squares;
}

}  // namespace kvant
