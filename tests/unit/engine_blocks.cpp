// RoPE, RMS norm, SwiGLU, the matrix product and attention without a cache, each against plain code in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/half.hpp"
#include "engine/matmul.hpp"
#include "engine/plain_attention.hpp"
#include "engine/rope.hpp"

namespace {

using namespace kvant::engine;

std::vector<float> random_floats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(random);
  }
  return values;
}

double wide(float value) { return static_cast<double>(value); }

}  // namespace

TEST_CASE("rope: neighbouring pairs turn, the rest of the head stays") {
  constexpr uint32_t kHeads = 3, kDim = 10, kRopeDims = 8, kPosition = 77;
  const Rope rope(kRopeDims, 10000.0, 100);
  const std::vector<float> before = random_floats(kHeads * kDim, 1);
  std::vector<float> after = before;
  rope.apply(after.data(), kHeads, kDim, kPosition);
  for (uint32_t head = 0; head < kHeads; ++head) {
    for (uint32_t i = 0; i < kRopeDims / 2; ++i) {
      const double angle = kPosition * std::pow(10000.0, -2.0 * i / kRopeDims);
      const double a = wide(before[head * kDim + 2 * i]);
      const double b = wide(before[head * kDim + 2 * i + 1]);
      CHECK(wide(after[head * kDim + 2 * i]) ==
            doctest::Approx(a * std::cos(angle) - b * std::sin(angle)).epsilon(1e-5));
      CHECK(wide(after[head * kDim + 2 * i + 1]) ==
            doctest::Approx(a * std::sin(angle) + b * std::cos(angle)).epsilon(1e-5));
    }
    CHECK(after[head * kDim + 8] == before[head * kDim + 8]);
    CHECK(after[head * kDim + 9] == before[head * kDim + 9]);
  }
  std::vector<float> still = before;
  rope.apply(still.data(), kHeads, kDim, 0);
  CHECK(still == before);
}

TEST_CASE("rope: the product of two heads depends on their distance alone") {
  const Rope rope(64, 10000.0, 512);
  const std::vector<float> q = random_floats(64, 2), k = random_floats(64, 3);
  const auto product = [&](uint32_t q_position, uint32_t k_position) {
    std::vector<float> a = q, b = k;
    rope.apply(a.data(), 1, 64, q_position);
    rope.apply(b.data(), 1, 64, k_position);
    double sum = 0;
    for (size_t i = 0; i < 64; ++i) {
      sum += wide(a[i]) * wide(b[i]);
    }
    return sum;
  };
  CHECK(product(17, 5) == doctest::Approx(product(412, 400)).epsilon(1e-4));
  CHECK(product(17, 5) != doctest::Approx(product(17, 6)).epsilon(1e-3));
}

TEST_CASE("rms norm and swiglu against double") {
  const std::vector<float> row = random_floats(100, 4), weight = random_floats(100, 5);
  std::vector<float> out(100);
  rms_norm(row.data(), weight.data(), 1e-5f, 100, out.data());
  double sum = 0;
  for (const float value : row) {
    sum += wide(value) * wide(value);
  }
  for (size_t i = 0; i < 100; ++i) {
    CHECK(wide(out[i]) == doctest::Approx(wide(row[i]) / std::sqrt(sum / 100 + 1e-5) * wide(weight[i])).epsilon(1e-5));
  }
  std::vector<float> gate = row;
  swiglu(gate.data(), weight.data(), 100);
  for (size_t i = 0; i < 100; ++i) {
    const double expected = wide(row[i]) / (1.0 + std::exp(-wide(row[i]))) * wide(weight[i]);
    CHECK(wide(gate[i]) == doctest::Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("matmul: one row, few rows and rows shared by threads") {
  for (const size_t rows : {1u, 3u, 65u, 130u}) {
    constexpr size_t kIn = 37, kOut = 29;
    const std::vector<float> x = random_floats(rows * kIn, 6), w = random_floats(kOut * kIn, 7);
    std::vector<float> y(rows * kOut, 1e30f);
    matmul(x.data(), w.data(), y.data(), rows, kIn, kOut);
    double worst = 0;
    for (size_t r = 0; r < rows; ++r) {
      for (size_t o = 0; o < kOut; ++o) {
        double sum = 0;
        for (size_t i = 0; i < kIn; ++i) {
          sum += wide(x[r * kIn + i]) * wide(w[o * kIn + i]);
        }
        worst = std::max(worst, std::fabs(sum - wide(y[r * kOut + o])));
      }
    }
    CAPTURE(rows);
    CHECK(worst < 2e-5);
  }
}

TEST_CASE("matmul: a row's bits do not depend on the rows beside it") {
  for (const size_t in : {5u, 37u, 256u}) {
    constexpr size_t kOut = 29;
    const std::vector<float> x = random_floats(kMostUniformRows * in, 16), w = random_floats(kOut * in, 17);
    std::vector<float> alone(kMostUniformRows * kOut);
    for (size_t r = 0; r < kMostUniformRows; ++r) {
      matmul(&x[r * in], w.data(), &alone[r * kOut], 1, in, kOut);
    }
    for (size_t rows = 2; rows <= kMostUniformRows; ++rows) {
      CAPTURE(in);
      CAPTURE(rows);
      std::vector<float> together(rows * kOut);
      matmul(x.data(), w.data(), together.data(), rows, in, kOut);
      CHECK(std::equal(together.begin(), together.end(), alone.begin()));
    }
  }
}

TEST_CASE("plain attention: grouped heads, causal, two sequences in one batch") {
  const AttentionShape shape{1, 4, 2, 24};
  const std::vector<BatchEntry> entries = {{0, 0, 5}, {1, 0, 3}};
  const uint32_t tokens = 8;
  const std::vector<float> k = random_floats(tokens * 2 * 24, 8), v = random_floats(tokens * 2 * 24, 9),
                           q = random_floats(tokens * 4 * 24, 10);
  std::vector<float> out(q.size());
  PlainAttention attention(shape);
  REQUIRE(attention.begin(entries).ok());
  REQUIRE(attention.run(0, k.data(), v.data(), q.data(), out.data()).ok());
  for (uint32_t token = 0; token < tokens; ++token) {
    const uint32_t first = token < 5 ? 0 : 5;
    for (uint32_t head = 0; head < 4; ++head) {
      const size_t kv_head = head / 2;
      double sum = 0;
      std::vector<double> expected(24, 0.0);
      for (uint32_t past = first; past <= token; ++past) {
        double dot = 0;
        for (size_t i = 0; i < 24; ++i) {
          dot += wide(q[(token * 4 + head) * 24 + i]) * wide(k[(past * 2 + kv_head) * 24 + i]);
        }
        const double weight = std::exp(dot / std::sqrt(24.0));
        sum += weight;
        for (size_t i = 0; i < 24; ++i) {
          expected[i] += weight * wide(v[(past * 2 + kv_head) * 24 + i]);
        }
      }
      for (size_t i = 0; i < 24; ++i) {
        CHECK(wide(out[(token * 4 + head) * 24 + i]) == doctest::Approx(expected[i] / sum).epsilon(1e-4));
      }
    }
  }
  const std::vector<BatchEntry> later = {{0, 5, 1}};
  CHECK_FALSE(attention.begin(later).ok());
}

TEST_CASE("half floats: all 65536 against arithmetic") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = half_to_float(static_cast<uint16_t>(bits));
    const uint32_t exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    if (exponent == 31) {
      CHECK((mantissa != 0 ? std::isnan(value) : std::isinf(value)));
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.0 + mantissa, static_cast<int>(exponent) - 25);
    if (wide(value) != ((bits & 0x8000) != 0 ? -magnitude : magnitude)) {
      FAIL_CHECK("half ", bits, " is ", value);
    }
  }
}
