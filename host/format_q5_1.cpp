// Codec q5_1: x = d * q + m, q five bits, f16 d = (max - min) / 31 and f16 m = min per 32 elements, as ggml's reference
// quantizer. Scale bits: d in the low half, m in the high half. docs/formats/q5_1.md
#include "format_codec.hpp"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  codec::encode_affine(x, 31, codes, scale_bits);
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  codec::store_le(out, scale_bits, 4);
  codec::store_le(out + 4, codec::gather_fifth_bits(codes), 4);
  codec::pack_ggml_nibbles(codes, out + 8);
}

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = codec::load_le(in, 4);
  codec::unpack_ggml_nibbles(in + 8, codes);
  codec::spread_fifth_bits(codec::load_le(in + 4, 4), codes);
}

}  // namespace

const FormatCodec codec_q5_1{32, 24, encode_block, codec::decode_affine, pack_canonical, unpack_canonical};

}  // namespace kvant
