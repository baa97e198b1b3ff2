// Codec nl4: x = level[code] * d, 16 levels for blocks of normal values, UE5M3 byte d per 32 elements: the neighbour of the absolute maximum
// below it or the one above, whichever errs less. docs/formats/nl4.md
#include "format_codec.hpp"
#include "params/nl4.h"

namespace kvant {
namespace {

constexpr codec::Levels16 kLevels = {{KVANT_NL4_LEVELS}, {KVANT_NL4_MIDPOINTS}, KVANT_NL4_ZERO, 32};

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  codec::encode_levels16_ue5m3(kLevels, x, codes, scale_bits);
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  codec::decode_levels16(kLevels, codes, codec::ue5m3_to_f32(scale_bits), x);
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  codec::store_le(out, scale_bits, 1);
  codec::pack_nibbles(codes, out + 1);
}

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = codec::load_le(in, 1);
  codec::unpack_nibbles(in + 1, codes);
}

}  // namespace

const FormatCodec codec_nl4{32, 17, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
