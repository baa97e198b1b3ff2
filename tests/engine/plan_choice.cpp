// The choice of formats within a budget against every choice there is.
#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "engine/plan_choice.hpp"

using kvant::engine::choose_options;
using kvant::engine::PlanOption;

namespace {

struct Total {
  double bits = 0, cost = 0;
};

Total total_of(const std::vector<std::vector<PlanOption>>& sides, const std::vector<std::size_t>& choice) {
  Total total;
  for (std::size_t i = 0; i < sides.size(); ++i) {
    total.bits += sides[i][choice[i]].bits;
    total.cost += sides[i][choice[i]].cost;
  }
  return total;
}

// The least cost within the budget, by trying all; negative: none fits.
double least_cost(const std::vector<std::vector<PlanOption>>& sides, double bits) {
  double least = -1;
  std::vector<std::size_t> choice(sides.size(), 0);
  while (true) {
    const Total total = total_of(sides, choice);
    if (total.bits <= bits * static_cast<double>(sides.size()) && (least < 0 || total.cost < least)) {
      least = total.cost;
    }
    std::size_t i = 0;
    while (i < choice.size() && ++choice[i] == sides[i].size()) {
      choice[i++] = 0;
    }
    if (i == choice.size()) {
      return least;
    }
  }
}

}  // namespace

TEST_CASE("plan choice: the least cost of all choices within the budget") {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> cost(0, 1);
  for (int round = 0; round < 40; ++round) {
    CAPTURE(round);
    std::vector<std::vector<PlanOption>> sides(1 + random() % 6);
    for (auto& side : sides) {
      side.resize(1 + random() % 4);
      for (PlanOption& option : side) {
        option = {static_cast<double>(2 + random() % 7) + 0.25, cost(random)};
      }
    }
    for (const double bits : {2.0, 2.25, 3.5, 4.25, 5.0, 8.25, 16.0}) {
      CAPTURE(bits);
      const double expected = least_cost(sides, bits);
      const auto choice = choose_options(sides, bits);
      REQUIRE(choice.empty() == (expected < 0));
      if (expected < 0) {
        continue;
      }
      const Total total = total_of(sides, choice);
      CHECK(total.bits <= bits * static_cast<double>(sides.size()));
      CHECK(total.cost == doctest::Approx(expected).epsilon(1e-12));
    }
  }
}

TEST_CASE("plan choice: a budget that is no number, and bits between the steps") {
  const std::vector<std::vector<PlanOption>> sides{{{4.25, 1.0}, {2.0, 5.0}}, {{4.25, 1.0}, {2.0, 4.0}}};
  CHECK(choose_options(sides, -1.0).empty());
  CHECK(choose_options(sides, 0.0 / 0.0).empty());
  CHECK(choose_options(sides, 1.99).empty());
  CHECK(choose_options(sides, 3.125) == std::vector<std::size_t>{0, 1});
  CHECK(choose_options(sides, 4.24) == std::vector<std::size_t>{0, 1});
  CHECK(choose_options(sides, 4.25) == std::vector<std::size_t>{0, 0});
  // 4.0001 counts as 4 + 1/64: twice that is more than a mean of 4.01.
  CHECK(choose_options({{{4.0001, 0.0}, {1.0, 1.0}}, {{4.0001, 0.0}, {1.0, 2.0}}}, 4.01) == std::vector<std::size_t>{1, 0});
}
