// Codec nf4: x = level[code] * d, 16 normal-float levels, f16 d per 64 elements: the absolute maximum or 29/32 of it,
// whichever errs less. docs/formats/nf4.md
#include <algorithm>

#include "format_codec.hpp"
#include "params/nf4.h"

namespace kvant {
namespace {

void encode_block(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  const std::uint32_t amax = codec::largest_magnitude(x, 64);
  if (amax >= codec::kHugeBits) {
    std::fill_n(codes, 64, KVANT_NF4_ZERO);
    *scale_bits = codec::kF16Nan;
    return;
  }
  const auto largest = std::bit_cast<float>(amax);
  const std::uint32_t candidates[2] = {codec::scale_to_f16(largest), codec::scale_to_f16(largest * 0.90625f)};
  const float scales[2] = {codec::f16_scale(candidates[0]), codec::f16_scale(candidates[1])};
  *scale_bits = candidates[codec::encode_levels16(codec::nf4_levels, x, scales, codes)];
}

void decode_block(const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  codec::decode_levels16(codec::nf4_levels, codes, codec::f16_scale(scale_bits), x);
}

void pack_canonical(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  codec::store_le(out, scale_bits, 2);
  codec::pack_nf4(codes, out + 2);
}

void unpack_canonical(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = codec::load_le(in, 2);
  codec::unpack_nf4(in + 2, codes);
}

}  // namespace

const FormatCodec codec_nf4{64, 34, encode_block, decode_block, pack_canonical, unpack_canonical};

}  // namespace kvant
