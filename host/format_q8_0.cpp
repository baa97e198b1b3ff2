// Codec q8_0: x = d * q, q a signed byte, f16 d = amax / 127 per 32 elements, as ggml's reference quantizer.
// docs/formats/q8_0.md
#include <algorithm>
#include <cmath>

#include "format_codec.hpp"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  const std::uint32_t amax = codec::largest_magnitude(x, 32);
  if (amax < codec::kTinyBits || amax >= codec::kHugeBits) {
    std::fill_n(codes, 32, 0u);
    *scale_bits = amax >= codec::kHugeBits ? codec::kF16Nan : 0u;
    return;
  }
  const float d = std::bit_cast<float>(amax) / 127.0f;
  const float inverse = 1.0f / d;
  for (std::uint32_t i = 0; i < 32; ++i) {
    codes[i] = static_cast<std::uint32_t>(static_cast<std::int32_t>(std::round(x[i] * inverse))) & 0xFFu;
  }
  *scale_bits = codec::scale_to_f16(d);
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  const float d = codec::f16_scale(scale_bits);
  for (std::uint32_t i = 0; i < 32; ++i) x[i] = static_cast<float>(static_cast<std::int8_t>(codes[i])) * d;
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  codec::store_le(out, scale_bits, 2);
  for (std::uint32_t i = 0; i < 32; ++i) out[2 + i] = static_cast<std::byte>(codes[i]);
}

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = codec::load_le(in, 2);
  for (std::uint32_t i = 0; i < 32; ++i) codes[i] = std::to_integer<std::uint32_t>(in[2 + i]);
}

}  // namespace

const FormatCodec codec_q8_0{32, 34, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
