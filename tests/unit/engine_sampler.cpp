// The sampler: reproducible, and distributed as the options say.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "engine/sampler.hpp"

namespace {

using namespace kvant::engine;

const std::vector<float> kLogits = {0.0f, 2.0f, 1.0f, -1.0f, 2.5f, -3.0f};

std::map<uint32_t, int> draw(const SamplerOptions& options, int count) {
  Sampler sampler(options);
  std::map<uint32_t, int> seen;
  for (int i = 0; i < count; ++i) {
    ++seen[sampler.next(kLogits)];
  }
  return seen;
}

}  // namespace

TEST_CASE("sampler: greedy takes the largest, the first of equals") {
  Sampler greedy(SamplerOptions{});
  CHECK(greedy.next(kLogits) == 4);
  const std::vector<float> equal = {1.0f, 3.0f, 3.0f};
  CHECK(greedy.next(equal) == 1);
}

TEST_CASE("sampler: one seed gives one text, another seed another") {
  const SamplerOptions options{1.0f, 0, 1.0f, 99};
  SamplerOptions other = options;
  other.seed = 100;
  Sampler a(options), b(options), c(other);
  int different = 0;
  for (int i = 0; i < 200; ++i) {
    const uint32_t token = a.next(kLogits);
    CHECK(token == b.next(kLogits));
    different += token != c.next(kLogits) ? 1 : 0;
  }
  CHECK(different > 20);
}

TEST_CASE("sampler: frequencies follow the softmax at a temperature") {
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    constexpr int kDraws = 40000;
    auto seen = draw({temperature, 0, 1.0f, 3}, kDraws);
    double sum = 0;
    for (const float logit : kLogits) {
      sum += std::exp(static_cast<double>(logit / temperature));
    }
    double chi_square = 0;
    for (uint32_t token = 0; token < kLogits.size(); ++token) {
      const double expected = kDraws * std::exp(static_cast<double>(kLogits[token] / temperature)) / sum;
      chi_square += (seen[token] - expected) * (seen[token] - expected) / expected;
    }
    CAPTURE(temperature);
    CHECK(chi_square < 20.5);  // 5 degrees of freedom, p = 0.001
  }
}

TEST_CASE("sampler: top-k, top-p and both") {
  const auto kept = [](const SamplerOptions& options) {
    std::vector<uint32_t> tokens;
    double sum = 0;
    for (const Candidate& candidate : candidates(options, kLogits)) {
      tokens.push_back(candidate.token);
      sum += candidate.probability;
    }
    CHECK(sum == doctest::Approx(1.0));
    return tokens;
  };
  // Probabilities at temperature 1: 4: 0.499, 1: 0.303, 2: 0.111, 0: 0.041, 3: 0.015, 5: 0.002 (rest of rounding).
  CHECK(kept({1.0f, 2, 1.0f, 0}) == std::vector<uint32_t>{4, 1});
  CHECK(kept({1.0f, 100, 1.0f, 0}).size() == 6);
  CHECK(kept({1.0f, 0, 0.1f, 0}) == std::vector<uint32_t>{4});
  CHECK(kept({1.0f, 0, 0.75f, 0}) == std::vector<uint32_t>{4, 1});
  CHECK(kept({1.0f, 0, 0.9f, 0}) == std::vector<uint32_t>{4, 1, 2});
  CHECK(kept({1.0f, 2, 0.99f, 0}) == std::vector<uint32_t>{4, 1});
  CHECK(kept({1.0f, 3, 0.5f, 0}) == std::vector<uint32_t>{4});
  CHECK(kept({1.0f, 0, 0.0f, 0}) == std::vector<uint32_t>{4});
  const auto seen = draw({1.0f, 3, 1.0f, 5}, 2000);
  CHECK(seen.size() == 3);
  CHECK(seen.count(0) == 0);
}
