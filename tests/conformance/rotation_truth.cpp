#include "rotation_truth.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "rotation_matrix.hpp"

namespace kvant::conformance {

void take_back(std::span<double> out, std::span<double> bound, std::span<double> magnitude, std::size_t dim, double rounding, double step) {
  // Every element may carry each one's error: the root of the size at most. The transform rounds at most 24 times, one after the other.
  constexpr double kRoundings = 24 * 0x1p-24;
  const double root = std::sqrt(static_cast<double>(dim));
  for (std::size_t at = 0; at < out.size(); at += dim) {
    const std::span<double> row = out.subspan(at, dim), row_bound = bound.subspan(at, dim), row_magnitude = magnitude.subspan(at, dim);
    double largest = 0.0;
    for (const double x : row) largest = std::max(largest, std::fabs(x));
    const double error = root * (*std::max_element(row_bound.begin(), row_bound.end()) + kRoundings * largest);
    const double scale = root * *std::max_element(row_magnitude.begin(), row_magnitude.end());
    const std::vector<double> back = reference::rotated_back({row.begin(), row.end()});
    for (std::size_t d = 0; d < dim; ++d) {
      row[d] = back[d];
      row_bound[d] = error + std::fabs(back[d]) * rounding + step;
      row_magnitude[d] = scale;
    }
  }
}

}  // namespace kvant::conformance
