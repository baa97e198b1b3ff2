// Codec t5: x = level[index] * d * 9/1024, 5-bit codes of a tail-biting trellis with 8 states over 32 elements, UE5M3 byte d. docs/formats/t5.md
#include "trellis.hpp"

namespace kvant {
namespace {

constexpr float kLevels[64] = {
    -126, -119, -112, -105, -99, -93, -87, -82, -76, -71, -67, -62, -58, -54, -50, -46, -43, -39, -36, -33, -30, -27, -24, -21,
    -18, -16, -13, -11, -8, -6, -4, -1, 1, 4, 6, 8, 11, 13, 16, 18, 21, 24, 27, 30, 33, 36, 39, 43, 46, 50, 54, 58, 62, 67, 71,
    76, 82, 87, 93, 99, 105, 112, 119, 126};
constexpr codec::Trellis kTrellis = {kLevels, 64, 4, 1};

}  // namespace

constinit const FormatCodec codec_t5 = codec::trellis_codec<kTrellis>();

}  // namespace kvant
