// Codec t2: x = level[index] * d * 9/1024, 2-bit codes of a tail-biting trellis with 8 states over 32 elements, UE5M3 byte d. docs/formats/t2.md
#include "trellis.hpp"

namespace kvant {
namespace {

constexpr float kLevels[8] = {
    -100, -55, -30, -10, 10, 30, 55, 100};
constexpr codec::Trellis kTrellis = {kLevels, 8, 2, 1};

}  // namespace

constinit const FormatCodec codec_t2 = codec::trellis_codec<kTrellis>();

}  // namespace kvant
