// Codec t4x: t4's code, two trellises of 32 elements under one scale byte. docs/formats/t4x.md
#include "trellis.hpp"

namespace kvant {
namespace {

constexpr float kLevels[32] = {
    -120, -104, -90, -78, -68, -59, -51, -44, -38, -32, -27, -22, -17, -12, -7, -2, 2, 7, 12, 17, 22, 27, 32, 38, 44, 51, 59, 68,
    78, 90, 104, 120};
constexpr codec::Trellis kTrellis = {kLevels, 32, 4, 2};

}  // namespace

constinit const FormatCodec codec_t4x = codec::trellis_codec<kTrellis>();

}  // namespace kvant
