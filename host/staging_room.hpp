// How much of a long piece of work is staged at once.
#pragma once

#include <algorithm>

#include "executor.hpp"

namespace kvant {

// Half of what one stage() call may take, which leaves room for what is staged beside it.
inline std::uint64_t staging_piece_bytes(const ExecutorLimits& limits) { return limits.max_staging_bytes / 2; }

// How many things of so many bytes such a piece holds, at least one.
inline std::uint64_t most_staged(const ExecutorLimits& limits, std::uint64_t bytes_each) {
  return std::max<std::uint64_t>(1, staging_piece_bytes(limits) / bytes_each);
}

}  // namespace kvant
