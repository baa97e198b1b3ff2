// Codec t4x: t4's code, two trellises of 32 elements under one scale byte. docs/formats/t4x.md
#include "trellis.hpp"

namespace kvant {
namespace {

constexpr codec::Trellis kTrellis = {codec::kT4Levels, 32, 4, 2};

}  // namespace

constinit const FormatCodec codec_t4x = codec::trellis_codec<kTrellis>();

}  // namespace kvant
