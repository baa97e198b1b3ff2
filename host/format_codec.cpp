// Encoders that two formats share. Plain f32 arithmetic without contraction: each operation rounds once, as in the
// reference quantizers and in the shaders (the build compiles this folder with -ffp-contract=off).
#include "format_codec.hpp"

#include <algorithm>

#include "params/nf4.h"

namespace kvant::codec {
namespace {

constexpr float kLevels[16] = {KVANT_NF4_LEVELS};
constexpr float kMidpoints[15] = {KVANT_NF4_MIDPOINTS};
// 2^17: beyond, both scales saturate and squares could overflow.
constexpr std::uint32_t kSearchLimitBits = 0x48000000u;

float flush_denormal(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return (bits & 0x7F800000u) == 0u ? std::bit_cast<float>(bits & 0x80000000u) : x;
}

// Codes of 64 elements for one scale. The squared error is summed in four strands, as the shader's vectors do.
float quantize_nf4(const float* x, float scale, std::uint32_t* codes) {
  float sums[4] = {};
  for (std::uint32_t i = 0; i < 64; ++i) {
    std::uint32_t code = 0;
    for (std::uint32_t k = 0; k < 15; ++k) {
      if (x[i] > kMidpoints[k] * scale) code = k + 1;
    }
    const float error = x[i] - kLevels[code] * scale;
    sums[i % 4] += error * error;
    codes[i] = scale == 0.0f ? KVANT_NF4_ZERO : code;
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

float first_largest(const float* x) {
  std::uint32_t largest = 0;
  float value = 0.0f;
  for (std::uint32_t i = 0; i < 32; ++i) {
    if (magnitude_bits(x[i]) > largest) {
      largest = magnitude_bits(x[i]);
      value = x[i];
    }
  }
  return value;
}

void encode_symmetric(const float* x, std::uint32_t top, std::uint32_t* codes, std::uint32_t* scale_bits) {
  const std::uint32_t zero_code = (top + 1) / 2;
  const std::uint32_t amax = largest_magnitude(x, 32);
  if (amax < kTinyBits || amax >= kHugeBits) {
    std::fill_n(codes, 32, zero_code);
    *scale_bits = amax >= kHugeBits ? kF16Nan : 0x8000u;  // 0 / -8 is -0, as in the reference
    return;
  }
  const float d = first_largest(x) / -static_cast<float>(zero_code);
  const float inverse = 1.0f / d;
  const float offset = static_cast<float>(zero_code) + 0.5f;
  for (std::uint32_t i = 0; i < 32; ++i) {
    const float scaled = x[i] * inverse;
    codes[i] = std::min(top, static_cast<std::uint32_t>(scaled + offset));
  }
  *scale_bits = scale_to_f16(d);
}

void encode_affine(const float* x, std::uint32_t top, std::uint32_t* codes, std::uint32_t* scale_bits) {
  std::fill_n(codes, 32, 0u);
  if (largest_magnitude(x, 32) >= kHugeBits) {
    *scale_bits = kF16Nan;
    return;
  }
  float low = flush_denormal(x[0]);
  float high = low;
  for (std::uint32_t i = 1; i < 32; ++i) {
    const float value = flush_denormal(x[i]);
    if (value < low) low = value;
    if (value > high) high = value;
  }
  *scale_bits = scale_to_f16(low) << 16;
  const float range = high - low;
  if (std::bit_cast<std::uint32_t>(range) < kTinyBits) return;
  const float d = range / static_cast<float>(top);
  const float inverse = 1.0f / d;
  for (std::uint32_t i = 0; i < 32; ++i) {
    const float above = flush_denormal(x[i]) - low;
    const float scaled = above * inverse;
    codes[i] = std::min(top, static_cast<std::uint32_t>(scaled + 0.5f));
  }
  *scale_bits |= scale_to_f16(d);
}

void decode_affine(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  const float d = f16_scale(scale_bits & 0xFFFFu);
  const float m = f16_scale(scale_bits >> 16);
  for (std::uint32_t i = 0; i < 32; ++i) x[i] = static_cast<float>(codes[i]) * d + m;
}

std::uint32_t encode_nf4(const float* x, const float* scales, std::uint32_t* codes) {
  const float first_error = quantize_nf4(x, scales[0], codes);
  if (largest_magnitude(x, 64) >= kSearchLimitBits) return 0;
  std::uint32_t other[64];
  if (!(quantize_nf4(x, scales[1], other) < first_error)) return 0;
  std::copy_n(other, 64, codes);
  return 1;
}

void decode_nf4(const std::uint32_t* codes, float scale, float* x) {
  for (std::uint32_t i = 0; i < 64; ++i) x[i] = kLevels[codes[i]] * scale;
}

void pack_nf4(const std::uint32_t* codes, std::byte* out) {
  for (std::uint32_t j = 0; j < 32; ++j) out[j] = static_cast<std::byte>((codes[2 * j] << 4) | codes[2 * j + 1]);
}

void unpack_nf4(const std::byte* in, std::uint32_t* codes) {
  for (std::uint32_t j = 0; j < 32; ++j) {
    codes[2 * j] = std::to_integer<std::uint32_t>(in[j]) >> 4;
    codes[2 * j + 1] = std::to_integer<std::uint32_t>(in[j]) & 15u;
  }
}

}  // namespace kvant::codec
