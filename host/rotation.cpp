// Spans of 32 elements are summed first, then transformed within, as a lane of the kernels does it. The build compiles this folder with
// -ffp-contract=off.
#include "rotation.hpp"

#include <bit>
#include <cassert>
#include <vector>

namespace kvant {
namespace {

constexpr std::size_t kSpan = 32;

bool is_negative(std::size_t element) {
  std::uint32_t hash = (static_cast<std::uint32_t>(element) + 1u) * 0x9E3779B1u;
  hash = (hash ^ (hash >> 15)) * 0x85EBCA77u;
  return hash >> 31 != 0;
}

void apply_signs(std::span<float> row) {
  for (std::size_t i = 0; i < row.size(); ++i)
    if (is_negative(i)) row[i] = -row[i];
}

float scale_of(std::size_t size) {
  const int log2 = std::countr_zero(size);
  const float whole = std::bit_cast<float>((127u - static_cast<std::uint32_t>(log2) / 2u) << 23);
  return whole * (log2 % 2 != 0 ? 0.70710678118654752f : 1.0f);
}

// Within at most 32 elements, distances falling.
void transform_within(std::span<float> x, float scale) {
  for (std::size_t distance = x.size() / 2; distance != 0; distance /= 2) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      if ((i & distance) != 0) continue;
      const float sum = x[i] + x[i + distance], difference = x[i] - x[i + distance];
      x[i] = sum;
      x[i + distance] = difference;
    }
  }
  for (float& value : x) value *= scale;
}

void transform_block(std::span<float> x) {
  const float scale = scale_of(x.size());
  if (x.size() < kSpan) {
    for (float& value : x) value += 0.0f;  // as the sums of a kernel's lane begin: no negative zero goes in
    return transform_within(x, scale);
  }
  const std::vector<float> before(x.begin(), x.end());
  const std::size_t spans = x.size() / kSpan;
  for (std::size_t own = 0; own < spans; ++own) {
    const std::span<float> sums = x.subspan(own * kSpan, kSpan);
    for (std::size_t i = 0; i < kSpan; ++i) {
      sums[i] = 0.0f;
      for (std::size_t other = 0; other < spans; ++other) {
        const float value = before[other * kSpan + i];
        sums[i] += std::popcount(own & other) % 2 != 0 ? -value : value;
      }
    }
    transform_within(sums, scale);
  }
}

void transform_row(std::span<float> row) {
  assert(row.size() % 8 == 0);
  for (std::size_t begin = 0; begin < row.size();) {
    const std::size_t size = std::bit_floor(row.size() - begin);
    transform_block(row.subspan(begin, size));
    begin += size;
  }
}

}  // namespace

void rotate_row(std::span<float> row) {
  apply_signs(row);
  transform_row(row);
}

void rotate_row_back(std::span<float> row) {
  transform_row(row);
  apply_signs(row);
}

}  // namespace kvant
