// Sizes and durations as text: "1.5GiB", "30s". A decimal number, at most one space, and a unit in exactly this
// spelling; the result must be whole.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kvant {

// B, kB or KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024).
std::optional<std::uint64_t> bytes_from_text(std::string_view text);
// Milliseconds. ms, s, m, h, d.
std::optional<std::uint64_t> duration_from_text(std::string_view text);

}  // namespace kvant
