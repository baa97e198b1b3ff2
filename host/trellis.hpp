// Trellis-coded quantization of 32 elements, as shaders/include/trellis_encode.glsl does it; docs/formats/t4.md. Internal to the codecs of trellis formats.
#pragma once

#include <cstdint>

#include "format_codec.hpp"

namespace kvant::codec {

struct Trellis {
  const float* levels;     // in units of 9/1024 of the scale
  std::uint32_t count;     // of levels: twice as many as codes
  std::uint32_t low_bits;  // of a code in the code plane; a further one is in the high plane
  std::uint32_t spans;     // of 32 elements, each a trellis of its own, that share a scale
};

// Of t4 and t4x.
inline constexpr float kT4Levels[32] = {
    -120, -104, -90, -78, -68, -59, -51, -44, -38, -32, -27, -22, -17, -12, -7, -2, 2, 7, 12, 17, 22, 27, 32, 38, 44, 51, 59, 68,
    78, 90, 104, 120};

// The codes and the scale byte of a block of `spans` * 32 elements; a block that is not finite included.
void encode_trellis(const Trellis& table, const float* x, std::uint32_t* codes, std::uint32_t* scale_bits);
void decode_trellis(const Trellis& table, const std::uint32_t* codes, std::uint32_t scale_bits, float* x);

// Canonical bytes: the scale byte, then for each span the word of high bits, if there are any, and the low bits in the order of the elements.
constexpr std::uint32_t trellis_bytes(const Trellis& table) {
  return 1 + table.spans * (32 * table.low_bits / 8 + (table.count / 2 > 1u << table.low_bits ? 4 : 0));
}
void pack_trellis(const Trellis& table, const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out);
void unpack_trellis(const Trellis& table, const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits);

// The codec of a table that lives as long as the program.
template <const Trellis& table>
constexpr FormatCodec trellis_codec() {
  return {32 * table.spans, trellis_bytes(table),
          [](const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) { encode_trellis(table, x, codes, scale_bits); },
          [](const std::uint32_t* codes, std::uint32_t scale_bits, float* x) { decode_trellis(table, codes, scale_bits, x); },
          [](const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) { pack_trellis(table, codes, scale_bits, out); },
          [](const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) { unpack_trellis(table, in, codes, scale_bits); }};
}

}  // namespace kvant::codec
