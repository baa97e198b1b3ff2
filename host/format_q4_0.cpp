// Codec q4_0: x = d * (q - 8), q a nibble, f16 d = (first value of largest magnitude) / -8 per 32 elements, as ggml's
// reference quantizer. docs/formats/q4_0.md
#include "format_codec.hpp"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  codec::encode_symmetric(x, 15, codes, scale_bits);
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  const float d = codec::f16_scale(scale_bits);
  for (std::uint32_t i = 0; i < 32; ++i) x[i] = (static_cast<float>(codes[i]) - 8.0f) * d;
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

const FormatCodec codec_q4_0{32, 18, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
