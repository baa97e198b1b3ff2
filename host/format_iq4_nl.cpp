// Codec iq4_nl: x = d * level[q], 16 uneven levels, f16 d = the least-squares fit over weights x^2 for the codes of
// (first value of largest magnitude) / -127, per 32 elements, as ggml's reference quantizer. docs/formats/iq4_nl.md
#include <algorithm>
#include <cmath>

#include "format_codec.hpp"
#include "params/iq4_nl.h"

namespace kvant {
namespace {

constexpr float kLevels[16] = {KVANT_IQ4_NL_LEVELS};
constexpr float kMidpoints[15] = {KVANT_IQ4_NL_MIDPOINTS};

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  const std::uint32_t amax = codec::largest_magnitude(x, 32);
  std::fill_n(codes, 32, KVANT_IQ4_NL_ZERO);
  *scale_bits = amax >= codec::kHugeBits ? codec::kF16Nan : 0;
  if (amax < codec::kTinyBits || amax >= codec::kHugeBits) return;
  // By a power of two the largest magnitude comes into [1, 2), where cubes neither overflow nor vanish.
  const int exponent = static_cast<int>(amax >> 23) - 127;
  const float unit = std::ldexp(1.0f, -exponent);
  const float inverse = 1.0f / (codec::first_largest(x) * unit / -127.0f);
  float sum_qx = 0.0f, sum_qq = 0.0f;
  for (std::uint32_t i = 0; i < 32; ++i) {
    const float y = x[i] * unit;
    const float scaled = y * inverse;
    codes[i] = static_cast<std::uint32_t>(std::upper_bound(kMidpoints, kMidpoints + 15, scaled) - kMidpoints);
    const float weighted = y * y * kLevels[codes[i]];
    sum_qx += weighted * y;
    sum_qq += weighted * kLevels[codes[i]];
  }
  *scale_bits = codec::scale_to_f16(std::ldexp(sum_qx / sum_qq, exponent));
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  const float d = codec::f16_scale(scale_bits);
  for (std::uint32_t i = 0; i < 32; ++i) x[i] = kLevels[codes[i]] * d;
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  codec::store_le(out, scale_bits, 2);
  codec::pack_ggml_nibbles(codes, out + 2);
}

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = codec::load_le(in, 2);
  codec::unpack_ggml_nibbles(in + 2, codes);
}

}  // namespace

const FormatCodec codec_iq4_nl{32, 18, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
