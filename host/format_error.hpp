// What a format costs, for planners that weigh formats against each other: bits, and an error that falls with them. Pure.
#pragma once

#include <cmath>

#include "formats.hpp"

namespace kvant {

// Of an element, scales included.
inline double format_bits(FormatId format) {
  constexpr std::uint32_t kElements = 128;
  return static_cast<double>(canonical_row_bytes(format_info(format), kElements)) * 8 / kElements;
}

// In proportion to the mean squared error: a bit less is four times as much (Gersho and Gray, Vector Quantization and Signal Compression,
// 1992, chapter 5).
inline double format_error(FormatId format) { return std::exp2(-2 * format_bits(format)); }

}  // namespace kvant
