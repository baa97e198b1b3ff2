// Rotary position embedding in llama.cpp's NORM convention, and RMS normalization.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvant::engine {

// Pairs are neighbours: (x[2i], x[2i+1]) turns by position * base^(-2i / dims), for the first `dims` elements of a
// head; the rest stays. (The other convention, NEOX, pairs i with i + dims / 2.)
class Rope {
 public:
  Rope(uint32_t dims, double base, uint32_t positions);
  // Turns every head of a row [heads][head_dim] in place.
  void apply(float* row, uint32_t heads, uint32_t head_dim, uint32_t position) const;

 private:
  uint32_t dims_;
  std::vector<float> cosines_;  // [positions][dims / 2]
  std::vector<float> sines_;
};

// out = row / sqrt(mean(row^2) + epsilon) * weight
void rms_norm(const float* row, const float* weight, float epsilon, uint32_t count, float* out);

// gate = gate * sigmoid(gate) * up
void swiglu(float* gate, const float* up, size_t count);

}  // namespace kvant::engine
