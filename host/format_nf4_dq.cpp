// Codec nf4_dq: nf4 whose scale is a UE5M3 byte (bits 14..7 of an f16) per 64 elements: the neighbour of the absolute
// maximum below it or the one above, whichever errs less. docs/formats/nf4_dq.md
#include "format_codec.hpp"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  codec::encode_levels16_ue5m3(codec::nf4_levels, x, codes, scale_bits);
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  codec::decode_levels16(codec::nf4_levels, codes, codec::ue5m3_to_f32(scale_bits), x);
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  codec::store_le(out, scale_bits, 1);
  codec::pack_nf4(codes, out + 1);
}

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = codec::load_le(in, 1);
  codec::unpack_nf4(in + 1, codes);
}

}  // namespace

const FormatCodec codec_nf4_dq{64, 33, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
