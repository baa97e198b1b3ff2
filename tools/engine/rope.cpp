// The element-wise parts of a Llama block.
#include "rope.hpp"

#include <cmath>

namespace kvant::engine {

Rope::Rope(uint32_t dims, double base, uint32_t positions) : dims_(dims) {
  const uint32_t pairs = dims / 2;
  cosines_.reserve(size_t{positions} * pairs);
  sines_.reserve(size_t{positions} * pairs);
  for (uint32_t position = 0; position < positions; ++position) {
    for (uint32_t i = 0; i < pairs; ++i) {
      const double angle = position * std::pow(base, -2.0 * i / dims);
      cosines_.push_back(static_cast<float>(std::cos(angle)));
      sines_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

void Rope::apply(float* row, uint32_t heads, uint32_t head_dim, uint32_t position) const {
  const uint32_t pairs = dims_ / 2;
  const float* cosine = cosines_.data() + size_t{position} * pairs;
  const float* sine = sines_.data() + size_t{position} * pairs;
  for (uint32_t head = 0; head < heads; ++head) {
    float* x = row + size_t{head} * head_dim;
    for (uint32_t i = 0; i < pairs; ++i) {
      const float a = x[2 * i];
      const float b = x[2 * i + 1];
      x[2 * i] = a * cosine[i] - b * sine[i];
      x[2 * i + 1] = a * sine[i] + b * cosine[i];
    }
  }
}

void rms_norm(const float* row, const float* weight, float epsilon, uint32_t count, float* out) {
  double sum = 0.0;
  for (uint32_t i = 0; i < count; ++i) {
    sum += static_cast<double>(row[i]) * static_cast<double>(row[i]);
  }
  const float scale = static_cast<float>(1.0 / std::sqrt(sum / count + static_cast<double>(epsilon)));
  for (uint32_t i = 0; i < count; ++i) {
    out[i] = row[i] * scale * weight[i];
  }
}

void swiglu(float* gate, const float* up, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
  }
}

}  // namespace kvant::engine
