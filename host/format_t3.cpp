// Codec t3: x = level[index] * d * 9/1024, 3-bit codes of a tail-biting trellis with 8 states over 32 elements, UE5M3 byte d. docs/formats/t3.md
#include "trellis.hpp"

namespace kvant {
namespace {

constexpr float kLevels[16] = {
    -120, -89, -68, -51, -38, -27, -16, -5, 5, 16, 27, 38, 51, 68, 89, 120};
constexpr codec::Trellis kTrellis = {kLevels, 16, 2, 1};

}  // namespace

constinit const FormatCodec codec_t3 = codec::trellis_codec<kTrellis>();

}  // namespace kvant
