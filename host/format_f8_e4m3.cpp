// Codec f8_e4m3: OCP 8-bit float with 4 exponent and 3 mantissa bits, scale 1, saturating. docs/formats/f8_e4m3.md
#include "format_codec.hpp"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  for (std::uint32_t i = 0; i < 32; ++i) codes[i] = f32_to_f8_e4m3(x[i]);
  *scale_bits = 0;
}

void decode_block(const std::uint32_t* codes, std::uint32_t, float* x) {
  for (std::uint32_t i = 0; i < 32; ++i) x[i] = f8_e4m3_to_f32(static_cast<std::uint8_t>(codes[i]));
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t, std::byte* out) { codec::store_le(out, codes[0], 1); }

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  codes[0] = codec::load_le(in, 1);
  *scale_bits = 0;
}

}  // namespace

const FormatCodec codec_f8_e4m3{1, 1, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
