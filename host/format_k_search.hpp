// The encoders' search of q5_k, q3_k and q2_k: which scales, offsets and codes a block of 256 elements gets. format_k.cpp
// turns the result into bytes and back.
#pragma once

#include <cstdint>

namespace kvant::codec {

inline constexpr std::uint32_t kSuperBlock = 256;

// y = (d * scale) * code - (low * min), a scale and a min for each `part` elements.
struct AffineShape {
  std::uint32_t part;             // elements of a part
  std::uint32_t top;              // largest code
  std::uint32_t most;             // largest scale and min
  std::uint32_t tries;            // ranges that are tried for a part:
  float narrowest, wider_by;      // the k-th is narrowest + k * wider_by of what its values span
};

struct AffineBlock {
  std::uint32_t d_bits = 0, low_bits = 0;  // f16
  std::uint32_t scales[16] = {}, mins[16] = {};
  std::uint32_t codes[kSuperBlock] = {};
};

// y = (d * scale) * (code - 4), scales -32 .. 31 for each 16 elements, codes 0 .. 7.
struct SymmetricBlock {
  std::uint32_t d_bits = 0;  // f16
  std::int32_t scales[16] = {};
  std::uint32_t codes[kSuperBlock] = {};
};

AffineBlock search_affine(const AffineShape& shape, const float* x);
SymmetricBlock search_symmetric(const float* x);

}  // namespace kvant::codec
