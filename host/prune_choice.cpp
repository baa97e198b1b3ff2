#include "prune_choice.hpp"

#include <cassert>
#include <numeric>
#include <string>

namespace kvant {

Status check_prune(const PruneSpec& spec) {
  if (spec.sinks <= spec.keep && spec.recent <= spec.keep - spec.sinks) return {};
  return {StatusCode::invalid_argument,
          "keep_tokens (" + std::to_string(spec.keep) + ") is less than the " + std::to_string(spec.sinks) +
              " sinks and " + std::to_string(spec.recent) +
              " recent tokens that stay in any case (the caller's, or those of a sliding window)"};
}

std::vector<std::uint64_t> choose_kept(std::uint64_t length, const PruneSpec& spec, std::span<const float> mass) {
  assert(length > spec.keep && mass.size() == length - spec.sinks - spec.recent);
  std::vector<std::uint64_t> order(mass.size()), kept;
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  const auto chosen = order.begin() + static_cast<std::ptrdiff_t>(spec.keep - spec.sinks - spec.recent);
  std::nth_element(order.begin(), chosen, order.end(),
                   [&](std::uint64_t a, std::uint64_t b) { return mass[a] != mass[b] ? mass[a] > mass[b] : a > b; });
  std::sort(order.begin(), chosen);
  kept.reserve(static_cast<std::size_t>(spec.keep));
  for (std::uint64_t token = 0; token < spec.sinks; ++token) kept.push_back(token);
  for (auto token = order.begin(); token != chosen; ++token) kept.push_back(spec.sinks + *token);
  for (std::uint64_t token = length - spec.recent; token < length; ++token) kept.push_back(token);
  return kept;
}

}  // namespace kvant
