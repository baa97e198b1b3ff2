// Which format each side of each layer gets within a budget: the least sum of costs, exactly.
#pragma once

#include <cstddef>
#include <vector>

namespace kvant::engine {

struct PlanOption {
  double bits = 0;  // per element
  double cost = 0;  // what choosing it adds; costs of sides add up
};

// For each side the index of its option: the least total cost of all choices whose bits are at most `bits` in the mean over the sides. Bits count
// in steps of 1/64, rounded up. Empty: even the options of the fewest bits are too many. Every side has an option.
std::vector<std::size_t> choose_options(const std::vector<std::vector<PlanOption>>& sides, double bits);

}  // namespace kvant::engine
