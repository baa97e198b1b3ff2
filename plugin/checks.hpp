// Checks of the values that several functions take: formats, sides, layers, head dimensions, token ranges.
#pragma once

#include <cstdint>
#include <string_view>

#include "cache.hpp"
#include "formats.hpp"
#include "interchange.hpp"
#include "objects.hpp"
#include "text.hpp"

namespace kvant::abi {

inline constexpr std::uint32_t kMaxLayers = 4096, kMaxKvHeads = 1024, kMaxQueryHeads = 16384;
inline constexpr std::uint64_t kMaxTokens = 0x7FFFFFFF - 32;  // token slots are 32-bit signed in the kernels

Result<FormatId> check_format(std::uint32_t format, std::string_view name);  // one that caches hold
// A format of rows outside of caches: one that caches hold, or an interchange format.
struct RowFormat {
  FormatId held{};
  const InterchangeFormat* interchange = nullptr;  // then `held` means nothing
};
Result<RowFormat> check_row_format(std::uint32_t format, std::string_view name);
Result<Side> check_side(std::uint32_t side);
Status check_layer(std::uint32_t layer, const CacheSpec& spec);
Status check_head_dim(std::uint32_t head_dim, std::string_view name);

// The cache keeps page tables itself, or the engine does: each function fits one kind.
Status check_sequences_kept(const CacheObject& cache);
Status check_pages_external(const CacheObject& cache);

// [begin, begin + count) of a live sequence.
Status check_token_range(CacheObject& cache, SequenceId sequence, std::uint64_t begin, std::uint64_t count);

// a * b * c in `product`; false when it does not fit in 64 bits.
bool multiply(std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t& product);

}  // namespace kvant::abi
