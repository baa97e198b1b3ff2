// Codec f32: the bits themselves. docs/formats/f32.md
#include "format_codec.hpp"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  for (std::uint32_t i = 0; i < 32; ++i) codes[i] = std::bit_cast<std::uint32_t>(x[i]);
  *scale_bits = 0;
}

void decode_block(const std::uint32_t* codes, std::uint32_t, float* x) {
  for (std::uint32_t i = 0; i < 32; ++i) x[i] = std::bit_cast<float>(codes[i]);
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t, std::byte* out) { codec::store_le(out, codes[0], 4); }

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  codes[0] = codec::load_le(in, 4);
  *scale_bits = 0;
}

}  // namespace

const FormatCodec codec_f32{1, 4, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
