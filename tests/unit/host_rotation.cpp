#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "rotation.hpp"
#include "rotation_matrix.hpp"

using namespace kvant;

namespace {

std::vector<float> normal_row(std::size_t size, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> row(size);
  for (float& x : row) x = normal(engine);
  return row;
}

double norm(const std::vector<float>& row) {
  double sum = 0.0;
  for (const float x : row) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("rotation: the fast transform is the matrix of the document, at every head size") {
  for (std::size_t size = 32; size <= 576; size += 8) {
    CAPTURE(size);
    const std::vector<float> row = normal_row(size, static_cast<std::uint32_t>(size));
    std::vector<float> there = row, back = row;
    rotate_row(there);
    rotate_row_back(back);
    const std::vector<double> exact(row.begin(), row.end());
    const std::vector<double> matrix = reference::rotated(exact), transpose = reference::rotated_back(exact);
    for (std::size_t i = 0; i < size; ++i) {
      REQUIRE(std::fabs(static_cast<double>(there[i]) - matrix[i]) <= 0x1p-21 * norm(row));
      REQUIRE(std::fabs(static_cast<double>(back[i]) - transpose[i]) <= 0x1p-21 * norm(row));
    }
  }
}

TEST_CASE("rotation: keeps norms and products, and is taken back") {
  for (const std::size_t size : {32u, 40u, 80u, 96u, 128u, 576u}) {
    CAPTURE(size);
    const std::vector<float> q = normal_row(size, 1), k = normal_row(size, 2);
    std::vector<float> turned_q = q, turned_k = k;
    rotate_row(turned_q);
    rotate_row(turned_k);
    double before = 0.0, after = 0.0;
    for (std::size_t i = 0; i < size; ++i) {
      before += static_cast<double>(q[i]) * static_cast<double>(k[i]);
      after += static_cast<double>(turned_q[i]) * static_cast<double>(turned_k[i]);
    }
    CHECK(std::fabs(after - before) <= 0x1p-20 * norm(q) * norm(k));
    CHECK(norm(turned_k) == doctest::Approx(norm(k)).epsilon(1e-6));
    rotate_row_back(turned_k);
    for (std::size_t i = 0; i < size; ++i) REQUIRE(std::fabs(turned_k[i] - k[i]) <= 0x1p-20 * norm(k));
  }
}

TEST_CASE("rotation: spreads a peak and a constant") {
  std::vector<float> peak(128, 0.0f), constant(128, 1.0f);
  peak[77] = 8.0f;
  rotate_row(peak);
  rotate_row(constant);
  for (const float x : peak) CHECK(std::fabs(x) == doctest::Approx(8.0 / std::sqrt(128.0)));
  for (const float x : constant) CHECK(std::fabs(x) < 4.0f);  // all in one element it would be 11.3
}
