// Encoders that two formats share. Plain f32 arithmetic without contraction: each operation rounds once, as in the
// reference quantizers and in the shaders (the build compiles this folder with -ffp-contract=off).
#include "format_codec.hpp"

#include <algorithm>

#include "params/nf4.h"

namespace kvant::codec {
namespace {

constexpr std::uint32_t kLargestUe5m3 = 0xF7u;  // 61440; above it f16's exponent is that of infinity
// 2^17: beyond, both scales saturate and squares could overflow.
constexpr std::uint32_t kSearchLimitBits = 0x48000000u;

float flush_denormal(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return (bits & 0x7F800000u) == 0u ? std::bit_cast<float>(bits & 0x80000000u) : x;
}

// Codes of a block for one scale. The squared error is summed in four strands, as the shader's vectors do.
float quantize_levels16(const Levels16& table, const float* x, float scale, std::uint32_t* codes) {
  float sums[4] = {};
  for (std::uint32_t i = 0; i < table.block; ++i) {
    std::uint32_t code = 0;
    for (std::uint32_t k = 0; k < 15; ++k) {
      if (x[i] > table.midpoints[k] * scale) code = k + 1;
    }
    const float error = x[i] - table.levels[code] * scale;
    sums[i % 4] += error * error;
    codes[i] = scale == 0.0f ? table.zero_code : code;
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

const Levels16 nf4_levels = {{KVANT_NF4_LEVELS}, {KVANT_NF4_MIDPOINTS}, KVANT_NF4_ZERO, 64};

std::uint32_t encode_levels16(const Levels16& table, const float* x, const float* scales, std::uint32_t* codes) {
  const float first_error = quantize_levels16(table, x, scales[0], codes);
  if (largest_magnitude(x, table.block) >= kSearchLimitBits) return 0;
  std::uint32_t other[64];
  if (!(quantize_levels16(table, x, scales[1], other) < first_error)) return 0;
  std::copy_n(other, table.block, codes);
  return 1;
}

void decode_levels16(const Levels16& table, const std::uint32_t* codes, float scale, float* x) {
  for (std::uint32_t i = 0; i < table.block; ++i) x[i] = table.levels[codes[i]] * scale;
}

float ue5m3_to_f32(std::uint32_t code) { return f16_scale(code << 7); }

std::uint32_t ue5m3_floor(std::uint32_t magnitude) {
  if (magnitude >= 0x38800000u) return std::min((magnitude - 0x38000000u) >> 20, kLargestUe5m3);
  if (magnitude < 0x37000000u) return 0;  // below 2^-17
  return ((magnitude & 0x007FFFFFu) | 0x00800000u) >> (133u - (magnitude >> 23));
}

void encode_levels16_ue5m3(const Levels16& table, const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  const std::uint32_t amax = largest_magnitude(x, table.block);
  if (amax >= kHugeBits) {
    std::fill_n(codes, table.block, table.zero_code);
    *scale_bits = kNanUe5m3;
    return;
  }
  const std::uint32_t below = ue5m3_floor(amax);
  const std::uint32_t candidates[2] = {below, std::min(below + 1u, kLargestUe5m3)};
  const float scales[2] = {ue5m3_to_f32(candidates[0]), ue5m3_to_f32(candidates[1])};
  *scale_bits = candidates[encode_levels16(table, x, scales, codes)];
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
