#include "distribution.hpp"

#include <algorithm>
#include <cmath>

namespace kvant::tools {

void log_softmax(std::span<float> row) {
  const double largest = static_cast<double>(*std::max_element(row.begin(), row.end()));
  double sum = 0;
  for (const float logit : row) {
    sum += std::exp(static_cast<double>(logit) - largest);
  }
  const double shift = largest + std::log(sum);
  for (float& logit : row) {
    logit = static_cast<float>(static_cast<double>(logit) - shift);
  }
}

double kl_divergence(std::span<const float> truth, std::span<const float> other) {
  double sum = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double log_p = static_cast<double>(truth[i]);
    sum += std::exp(log_p) * (log_p - static_cast<double>(other[i]));
  }
  return std::max(sum, 0.0);  // rounding can leave a few 1e-9 below zero
}

}  // namespace kvant::tools
