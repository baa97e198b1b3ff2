// Codec nf4_dq: nf4 whose scale is a UE5M3 byte (bits 14..7 of an f16) per 64 elements: the neighbour of the absolute
// maximum below it or the one above, whichever errs less. docs/formats/nf4_dq.md
#include <algorithm>

#include "format_codec.hpp"
#include "params/nf4.h"

namespace kvant {
namespace {

constexpr std::uint32_t kLargestCode = 0xF7u;  // 61440; above it f16's exponent is that of infinity
constexpr std::uint32_t kNanCode = 0xFFu;

float ue5m3_to_f32(std::uint32_t code) { return codec::f16_scale(code << 7); }

// The greatest code whose value is not above the magnitude.
std::uint32_t ue5m3_floor(std::uint32_t magnitude) {
  if (magnitude >= 0x38800000u) return std::min((magnitude - 0x38000000u) >> 20, kLargestCode);
  if (magnitude < 0x37000000u) return 0;  // below 2^-17
  return ((magnitude & 0x007FFFFFu) | 0x00800000u) >> (133u - (magnitude >> 23));
}

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  const std::uint32_t amax = codec::largest_magnitude(x, 64);
  if (amax >= codec::kHugeBits) {
    std::fill_n(codes, 64, KVANT_NF4_ZERO);
    *scale_bits = kNanCode;
    return;
  }
  const std::uint32_t below = ue5m3_floor(amax);
  const std::uint32_t candidates[2] = {below, std::min(below + 1u, kLargestCode)};
  const float scales[2] = {ue5m3_to_f32(candidates[0]), ue5m3_to_f32(candidates[1])};
  *scale_bits = candidates[codec::encode_nf4(x, scales, codes)];
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  codec::decode_nf4(codes, ue5m3_to_f32(scale_bits), x);
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
