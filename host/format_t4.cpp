// Codec t4: x = level[index] * d * 9/1024, 4-bit codes of a tail-biting trellis with 8 states over 32 elements, UE5M3 byte d. docs/formats/t4.md
#include "trellis.hpp"

namespace kvant {
namespace {

constexpr codec::Trellis kTrellis = {codec::kT4Levels, 32, 4, 1};

}  // namespace

constinit const FormatCodec codec_t4 = codec::trellis_codec<kTrellis>();

}  // namespace kvant
