#include "engine/plan_choice.hpp"

#include <cmath>
#include <cstdint>
#include <limits>

namespace kvant::engine {

std::vector<std::size_t> choose_options(const std::vector<std::vector<PlanOption>>& sides, double bits) {
  constexpr double kSteps = 64;
  constexpr double kNone = std::numeric_limits<double>::infinity();
  const auto steps_of = [](const PlanOption& option) { return static_cast<std::size_t>(std::ceil(option.bits * kSteps - 1e-6)); };
  const double room = bits * kSteps * static_cast<double>(sides.size());
  if (!(room >= 0)) {
    return {};
  }
  const auto budget = static_cast<std::size_t>(room + 1e-6);
  // least[b]: of the sides so far, with at most b steps in all; taken: which option of a side that is.
  std::vector<double> least(budget + 1, 0.0), next(budget + 1);
  std::vector<std::vector<std::uint32_t>> taken;
  for (const std::vector<PlanOption>& options : sides) {
    std::vector<std::uint32_t>& chosen = taken.emplace_back(budget + 1, 0);
    for (std::size_t b = 0; b <= budget; ++b) {
      next[b] = kNone;
      for (std::uint32_t i = 0; i < options.size(); ++i) {
        const std::size_t steps = steps_of(options[i]);
        if (steps <= b && least[b - steps] + options[i].cost < next[b]) {
          next[b] = least[b - steps] + options[i].cost;
          chosen[b] = i;
        }
      }
    }
    least.swap(next);
  }
  if (least[budget] == kNone) {
    return {};
  }
  std::vector<std::size_t> choice(sides.size());
  std::size_t left = budget;
  for (std::size_t side = sides.size(); side-- > 0;) {
    choice[side] = taken[side][left];
    left -= steps_of(sides[side][choice[side]]);
  }
  return choice;
}

}  // namespace kvant::engine
