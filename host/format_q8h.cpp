// Codec q8h: x = d * q, q a signed byte, f16 d = amax / 127 per 64 elements; q is the nearest to x / d with the d that is stored. docs/formats/q8h.md
#include <algorithm>
#include <cmath>

#include "format_codec.hpp"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  const std::uint32_t amax = codec::largest_magnitude(x, 64);
  std::fill_n(codes, 64, 0u);
  *scale_bits = amax >= codec::kHugeBits ? codec::kF16Nan : 0u;
  if (amax < codec::kTinyBits || amax >= codec::kHugeBits) return;
  *scale_bits = codec::scale_to_f16(std::bit_cast<float>(amax) / 127.0f);
  if (*scale_bits == 0) return;
  const float d = codec::f16_scale(*scale_bits), inverse = 1.0f / d;
  for (std::uint32_t i = 0; i < 64; ++i) {
    const float whole = std::round(std::clamp(x[i], -128.0f * d, 128.0f * d) * inverse);
    codes[i] = static_cast<std::uint32_t>(static_cast<std::int32_t>(std::clamp(whole, -127.0f, 127.0f))) & 0xFFu;
  }
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  const float d = codec::f16_scale(scale_bits);
  for (std::uint32_t i = 0; i < 64; ++i) x[i] = static_cast<float>(static_cast<std::int8_t>(codes[i])) * d;
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  codec::store_le(out, scale_bits, 2);
  for (std::uint32_t i = 0; i < 64; ++i) out[2 + i] = static_cast<std::byte>(codes[i]);
}

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = codec::load_le(in, 2);
  for (std::uint32_t i = 0; i < 64; ++i) codes[i] = std::to_integer<std::uint32_t>(in[2 + i]);
}

}  // namespace

const FormatCodec codec_q8h{64, 66, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
