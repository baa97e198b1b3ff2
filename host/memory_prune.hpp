// Whether sequences can be pruned one after the other: tokens that stay need pages to move into, free ones or the sequence's own that
// nobody else holds. Pure.
#pragma once

#include <span>

#include "memory_planner.hpp"

namespace kvant {

// `kept`: tokens of each sequence of the state that stay, at most its length.
bool prune_has_room(const MemoryState& state, std::span<const std::uint64_t> kept);

}  // namespace kvant
