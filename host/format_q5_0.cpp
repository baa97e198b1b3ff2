// Codec q5_0: x = d * (q - 16), q five bits, f16 d = (first value of largest magnitude) / -16 per 32 elements, as
// ggml's reference quantizer. docs/formats/q5_0.md
#include "format_codec.hpp"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  codec::encode_symmetric(x, 31, codes, scale_bits);
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  const float d = codec::f16_scale(scale_bits);
  for (std::uint32_t i = 0; i < 32; ++i) x[i] = (static_cast<float>(codes[i]) - 16.0f) * d;
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  codec::store_le(out, scale_bits, 2);
  codec::store_le(out + 2, codec::gather_fifth_bits(codes), 4);
  codec::pack_ggml_nibbles(codes, out + 6);
}

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = codec::load_le(in, 2);
  codec::unpack_ggml_nibbles(in + 6, codes);
  codec::spread_fifth_bits(codec::load_le(in + 2, 4), codes);
}

}  // namespace

const FormatCodec codec_q5_0{32, 22, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
