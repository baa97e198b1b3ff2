// Saved states out of fuzz inputs: the cache that loads them, and records with right numbers and checksums around
// payloads of the input's choice, so that what lies behind the checksums is reached.
#pragma once

#include <cstddef>
#include <vector>

#include "cache.hpp"
#include "fuzz_input.hpp"

namespace kvant::fuzz {

// Two layer groups, one with a window and sinks, and a prefix cache; 16 pages.
CacheSpec state_spec();

// Kinds of a record in the input, then what stands behind them:
//   0  the header of state_spec() itself
//   1  a page: group, tokens, seed; its bytes follow from the seed
//   2  a sequence: id, length, facts, tokens and tables as counts and values
//   3  any type: type, size in 16 bits, payload
//   4  the end, before the input's
std::vector<std::byte> sealed_state(FuzzInput& in);

}  // namespace kvant::fuzz
