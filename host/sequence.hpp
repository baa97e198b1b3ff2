// Sequence: one request's token history as page tables, one per layer group, and the rules for what a sliding window
// lets go.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "cache_spec.hpp"
#include "geometry.hpp"
#include "page_table.hpp"
#include "prefix_index.hpp"

namespace kvant {

struct Sequence {
  SequenceId id{};
  std::uint64_t length = 0;       // committed tokens
  std::vector<PageTable> tables;  // per layer group
  std::vector<PageTable> wide;    // per layer group, of WidePages' pools; holes and a missing end where there is no copy. Empty without any
  std::uint32_t aged_pages = 0;   // pages before it have no copies but those of the first tokens
  std::vector<std::int32_t> tokens;  // ids of the first ones, as far as known; may run ahead of length
  PrefixNode* node = nullptr;        // pinned: the last of its pages that the prefix index holds; null without an index
  PublishFacts publish;
  std::uint64_t reused = 0;          // tokens that were there when it was created
  bool whole = false;                // SequenceSpec::whole
  bool pruned = false;               // places are not positions any more
  std::uint64_t least_length = 0;    // it cannot be cut shorter: tokens before it lack what a sliding window would see then

  // Pages that are full and whose tokens are known.
  std::uint64_t publishable_tokens() const { return std::min<std::uint64_t>(length, tokens.size()); }
};

struct PageSpan {
  std::uint32_t begin = 0, end = 0;  // logical page indices, end exclusive
  bool empty() const { return begin >= end; }
};

// Pages that no query at position >= length - 1 can see: outside the window and behind the sinks.
PageSpan pages_past_window(const GroupGeometry& group, std::uint64_t length, std::uint32_t page_tokens);

// Releases those pages. `length` is the length before the last committed step, so that this step can still be taken
// back.
void drop_past_window(Sequence& sequence, std::span<const GroupGeometry> groups, std::span<PagePool> pools,
                      std::uint64_t length, std::uint32_t page_tokens);

// Whether the sequence still holds every token that a continuation at `length` may see. Errors: failed_precondition.
Status check_history(const Sequence& sequence, std::span<const GroupGeometry> groups, std::uint64_t length,
                     std::uint32_t page_tokens);

// Drops tokens from `length` on and the pages that only held those.
void shrink_sequence(Sequence& sequence, std::span<PagePool> pools, std::uint64_t length, std::uint32_t page_tokens);

}  // namespace kvant
