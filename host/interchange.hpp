// Interchange formats: ggml's k-quants, whose blocks of 256 elements span the heads of a token, so that no cache holds them. Rows in
// them are encoded and decoded on the host, for engines that bring K and V in or take them out that way. Byte formats:
// docs/formats/k_quants.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kvant {

inline constexpr std::uint32_t kInterchangeFirstId = 0x10000;   // far from the ids of the formats that caches hold
inline constexpr std::uint32_t kInterchangeBlock = 256;         // elements
inline constexpr std::uint32_t kInterchangeMaxRow = 1u << 20;   // elements

struct InterchangeFormat {
  std::uint32_t id;
  std::string_view name;  // NUL-terminated
  std::uint32_t block_bytes;
  void (*encode_block)(const float* x, std::byte* out);
  void (*decode_block)(const std::byte* in, float* x);
};

std::span<const InterchangeFormat> interchange_formats();                   // in order of id
const InterchangeFormat* interchange_by_id(std::uint32_t id);               // null: none
const InterchangeFormat* interchange_by_name(std::string_view name);        // null: none
std::string interchange_names();                                            // "q5_k, q3_k, q2_k"

// Bytes of `elements`, a multiple of 256.
std::uint64_t interchange_bytes(const InterchangeFormat& format, std::uint64_t elements);
// Whole blocks, one after the other: rows of any length that is a multiple of 256.
void encode_interchange(const InterchangeFormat& format, std::span<const float> x, std::span<std::byte> out);
void decode_interchange(const InterchangeFormat& format, std::span<const std::byte> in, std::span<float> x);

}  // namespace kvant
