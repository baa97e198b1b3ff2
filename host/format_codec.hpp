// What the files format_<name>.cpp share: the shape of a codec, the rules for blocks that are too small or not finite,
// and little-endian access. Internal to formats.cpp and the codecs.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "formats.hpp"

namespace kvant {

// The part of FormatInfo that formats.def does not hold; one per format, named codec_<symbol>.
struct FormatCodec {
  std::uint32_t canonical_block;
  std::uint32_t canonical_bytes;
  void (*encode_block)(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits);
  void (*decode_block)(const std::uint32_t* codes, std::uint32_t scale_bits, float* x);
  void (*pack_canonical)(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out);
  void (*unpack_canonical)(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits);
};

#define KVANT_FORMAT(symbol, id, block, code_bits, high_bits, scale_bytes, row_pad, int_dot) \
  extern const FormatCodec codec_##symbol;
#include "formats.def"
#undef KVANT_FORMAT

namespace codec {

// Blocks whose largest magnitude lies below 2^-100 encode as zeros, so that no step meets an f32 denormal; from 2^126
// on, infinity and NaN included, they encode as one NaN scale, so that the damage shows where it is. numeric.glsl has
// the same.
inline constexpr std::uint32_t kTinyBits = 0x0D800000u;
inline constexpr std::uint32_t kHugeBits = 0x7E800000u;
inline constexpr std::uint32_t kF16Nan = 0x7E00u;

inline std::uint32_t magnitude_bits(float x) { return std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu; }

inline std::uint32_t largest_magnitude(const float* x, std::uint32_t count) {
  std::uint32_t largest = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (magnitude_bits(x[i]) > largest) largest = magnitude_bits(x[i]);
  }
  return largest;
}

// A scale never becomes infinite: it stops at the largest f16.
inline std::uint32_t scale_to_f16(float scale) {
  const std::uint32_t h = f32_to_f16(scale);
  return (h & 0x7FFFu) == 0x7C00u ? h - 1u : h;
}

inline float f16_scale(std::uint32_t bits) { return f16_to_f32(static_cast<std::uint16_t>(bits)); }

inline void store_le(std::byte* out, std::uint32_t value, std::uint32_t bytes) {
  for (std::uint32_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>((value >> (8u * i)) & 0xFFu);
}

inline std::uint32_t load_le(const std::byte* in, std::uint32_t bytes) {
  std::uint32_t value = 0;
  for (std::uint32_t i = 0; i < bytes; ++i) value |= std::to_integer<std::uint32_t>(in[i]) << (8u * i);
  return value;
}

// The 16 bytes of low nibbles of ggml's 4- and 5-bit blocks: element j in the low, j + 16 in the high half of byte j.
inline void pack_ggml_nibbles(const std::uint32_t* codes, std::byte* out) {
  for (std::uint32_t j = 0; j < 16; ++j) {
    out[j] = static_cast<std::byte>((codes[j] & 15u) | ((codes[j + 16] & 15u) << 4));
  }
}

inline void unpack_ggml_nibbles(const std::byte* in, std::uint32_t* codes) {
  for (std::uint32_t j = 0; j < 16; ++j) {
    codes[j] = std::to_integer<std::uint32_t>(in[j]) & 15u;
    codes[j + 16] = std::to_integer<std::uint32_t>(in[j]) >> 4;
  }
}

// 16 bytes in element order, the first element of a pair in the low half.
inline void pack_nibbles(const std::uint32_t* codes, std::byte* out) {
  for (std::uint32_t j = 0; j < 16; ++j) out[j] = static_cast<std::byte>(codes[2 * j] | (codes[2 * j + 1] << 4));
}

inline void unpack_nibbles(const std::byte* in, std::uint32_t* codes) {
  for (std::uint32_t j = 0; j < 16; ++j) {
    codes[2 * j] = std::to_integer<std::uint32_t>(in[j]) & 15u;
    codes[2 * j + 1] = std::to_integer<std::uint32_t>(in[j]) >> 4;
  }
}

// The word of fifth bits of ggml's 5-bit blocks: bit i = element i.
inline std::uint32_t gather_fifth_bits(const std::uint32_t* codes) {
  std::uint32_t word = 0;
  for (std::uint32_t i = 0; i < 32; ++i) word |= ((codes[i] >> 4) & 1u) << i;
  return word;
}

inline void spread_fifth_bits(std::uint32_t word, std::uint32_t* codes) {
  for (std::uint32_t i = 0; i < 32; ++i) codes[i] |= ((word >> i) & 1u) << 4;
}

// The first value of largest magnitude among 32, as ggml's symmetric 4- and 5-bit quantizers choose it; 0 if all are
// zero.
float first_largest(const float* x);

// 32 codes min(top, trunc(x / d + top / 2 + 1)) with d = first_largest / -(top + 1) * 2: q4_0 (top 15) and q5_0 (top
// 31).
void encode_symmetric(const float* x, std::uint32_t top, std::uint32_t* codes, std::uint32_t* scale_bits);
// 32 codes min(top, trunc((x - min) / d + 0.5)) with d = (max - min) / top: q4_1 (top 15) and q5_1 (top 31).
void encode_affine(const float* x, std::uint32_t top, std::uint32_t* codes, std::uint32_t* scale_bits);
void decode_affine(const std::uint32_t* codes, std::uint32_t scale_bits, float* x);

// Formats whose codes name one of 16 levels.
struct Levels16 {
  float levels[16], midpoints[15];
  std::uint32_t zero_code, block;  // block: elements, at most 64
};
extern const Levels16 nf4_levels;

// Codes for scales[0], or for scales[1] if its squared error is smaller. Returns which.
std::uint32_t encode_levels16(const Levels16& table, const float* x, const float* scales, std::uint32_t* codes);
void decode_levels16(const Levels16& table, const std::uint32_t* codes, float scale, float* x);

// Scale bytes UE5M3: bits 14..7 of an f16.
inline constexpr std::uint32_t kNanUe5m3 = 0xFFu;
float ue5m3_to_f32(std::uint32_t code);
// The greatest code whose value is not above the magnitude.
std::uint32_t ue5m3_floor(std::uint32_t magnitude);
// Codes for the better of the two scale bytes around the largest magnitude, a block that is not finite included.
void encode_levels16_ue5m3(const Levels16& table, const float* x, std::uint32_t* codes, std::uint32_t* scale_bits);

// 32 bytes, first element of a pair in the high nibble.
void pack_nf4(const std::uint32_t* codes, std::byte* out);
void unpack_nf4(const std::byte* in, std::uint32_t* codes);

}  // namespace codec
}  // namespace kvant
