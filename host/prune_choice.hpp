// Which tokens of a sequence pruning keeps: its sinks, its newest, and of the others those that got most attention (as in H2O, Zhang et
// al. 2023, arXiv:2306.14048, with the sinks of StreamingLLM, Xiao et al. 2023, arXiv:2309.17453). Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "cache_spec.hpp"

namespace kvant {

// Sliding windows must go on seeing what they saw: at least their sinks and their newest tokens stay. `Group` has a window.
template <typename Group>
PruneSpec widen_to_windows(PruneSpec spec, std::span<const Group> groups) {
  for (const Group& group : groups) {
    if (group.window == 0) continue;
    spec.recent = std::max<std::uint64_t>(spec.recent, group.window);
    spec.sinks = std::max<std::uint64_t>(spec.sinks, group.window_sinks);
  }
  return spec;
}

// Errors: invalid_argument if spec.keep is less than its sinks and recent tokens.
Status check_prune(const PruneSpec& spec);
// Places of the tokens that stay of `length`, more than spec.keep. `mass`: of the tokens between sinks and recent ones, in order; of
// equal masses the newer token stays.
std::vector<std::uint64_t> choose_kept(std::uint64_t length, const PruneSpec& spec, std::span<const float> mass);

}  // namespace kvant
