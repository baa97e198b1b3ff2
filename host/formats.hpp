// KV formats on the host: the table expanded from shaders/formats.def, the planar layout of pages, and the reference
// encoders and decoders (bit-exact truth for the shaders; canonical bytes for import and export). Byte formats:
// docs/formats/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kvant {

enum class FormatId : std::uint32_t {
#define KVANT_FORMAT(symbol, id, block, code_bits, high_bits, scale_bytes, row_pad, int_dot) symbol = id,
#include "formats.def"
#undef KVANT_FORMAT
};

struct FormatInfo {
  FormatId id;
  std::string_view name;
  std::uint32_t block;             // elements per scale
  std::uint32_t code_bits, high_bits, scale_bytes, row_pad;
  bool int_dot;
  std::uint32_t canonical_block;   // elements of one canonical block: 1 for formats without a scale, else `block`
  std::uint32_t canonical_bytes;   // bytes of one canonical block
  // One block of `block` floats -> codes (low bits of each word), high bits and scale bits as the planes store them.
  // Elements past the head dimension are passed as zeros.
  void (*encode_block)(const float* x, std::uint32_t* codes, std::uint32_t* scale_bits);
  void (*decode_block)(const std::uint32_t* codes, std::uint32_t scale_bits, float* x);
  // One canonical block (canonical_block elements) between (codes, scale_bits) and canonical bytes.
  void (*pack_canonical)(const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out);
  void (*unpack_canonical)(const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits);
};

std::span<const FormatInfo> formats();                              // in order of id
const FormatInfo& format_info(FormatId id);                         // asserts that it exists
std::optional<FormatId> format_from_id(std::uint32_t id);
std::optional<FormatId> format_by_name(std::string_view name);

// Planar layout of one side (K or V) of a page: for each KV head a code plane [token][code_row_bytes], a high plane
// [token][high_row_bytes] and a scale plane [token][scale_row_bytes], in this order. Every plane starts on 16 bytes
// because page_tokens is 16 or 32. Element e of a row: code at bit (e * code_bits) of the row, little-endian words,
// natural order; high bit at bit e of the high row; scale of block e / block at byte (e / block) * scale_bytes of the
// scale row.
struct PageLayout {
  std::uint32_t code_row_bytes, high_row_bytes, scale_row_bytes;
  std::uint32_t high_offset, scale_offset;                          // bytes from the head's start
  std::uint32_t head_bytes;                                         // one head of one page
};
PageLayout page_layout(const FormatInfo& format, std::uint32_t head_dim, std::uint32_t page_tokens);

// Rows of `head_dim` floats (any head_dim; the last block is padded with zeros) to and from canonical bytes.
std::uint64_t canonical_row_bytes(const FormatInfo& format, std::uint32_t head_dim);
void encode_canonical_row(const FormatInfo& format, std::span<const float> x, std::span<std::byte> out);
void decode_canonical_row(const FormatInfo& format, std::span<const std::byte> in, std::span<float> x);

// One row (a token of one head) to and from the planes of a page; `head` points at the head's planes.
void encode_planar_row(const FormatInfo& format, const PageLayout& layout, std::byte* head, std::uint32_t token,
                       std::span<const float> x);
void decode_planar_row(const FormatInfo& format, const PageLayout& layout, const std::byte* head, std::uint32_t token,
                       std::span<float> x);
// Planar row <-> canonical row without decoding: the codes stay as they are.
void planar_to_canonical_row(const FormatInfo& format, const PageLayout& layout, const std::byte* head,
                             std::uint32_t token, std::uint32_t head_dim, std::span<std::byte> out);
void canonical_to_planar_row(const FormatInfo& format, const PageLayout& layout, std::byte* head, std::uint32_t token,
                             std::uint32_t head_dim, std::span<const std::byte> in);

// IEEE conversions with round-to-nearest-even, bit-exact on every host (half.cpp).
std::uint16_t f32_to_f16(float x);
float f16_to_f32(std::uint16_t h);
std::uint16_t f32_to_bf16(float x);
float bf16_to_f32(std::uint16_t h);
std::uint8_t f32_to_f8_e4m3(float x);  // saturates at 448; NaN -> 0x7f
float f8_e4m3_to_f32(std::uint8_t h);

}  // namespace kvant
