// Codec t4: x = level[index] * d * 9/1024, 4-bit codes of a tail-biting trellis with 8 states over 32 elements, UE5M3 byte d. docs/formats/t4.md
#include "trellis.hpp"

namespace kvant {
namespace {

constexpr float kLevels[32] = {
    -120, -104, -90, -78, -68, -59, -51, -44, -38, -32, -27, -22, -17, -12, -7, -2, 2, 7, 12, 17, 22, 27, 32, 38, 44, 51, 59, 68,
    78, 90, 104, 120};
constexpr codec::Trellis kTrellis = {kLevels, 32, 4, 1};

}  // namespace

constinit const FormatCodec codec_t4 = codec::trellis_codec<kTrellis>();

}  // namespace kvant
