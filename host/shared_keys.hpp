// Which keys neighbouring sequences of a batch share. Runs of neighbours that begin with the same pages are trees: keys of all, then of some of
// them, then of each its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "batch.hpp"

namespace kvant {

// Fewer are read again for each sequence: items of their own, with partial results to merge, cost more.
inline constexpr std::uint32_t kLeastSharedKeys = 128;

// Sequences that ask `least` to `most` queries, each of which must see the keys.
struct SharedAsk {
  bool causal = true;
  std::uint32_t least = 1, most = 0xFFFFFFFFu;
};

// How many keys, from the first one on, every query of the sequence sees in a layer group without a window.
std::uint32_t keys_seen_by_all(const params::AttendSeq& seq, bool causal);

// Per sequence: how many first keys it shares with the one before it, by batch.common_pages; whole pages, 0 or kLeastSharedKeys and more.
void find_common_tokens(const GroupBatch& batch, std::uint32_t page_tokens, const SharedAsk& ask, std::vector<std::uint32_t>& common);

// Visits the tree of sequences [first, last), which agree on their first `begin` keys. shared(first, last, begin, end, state) is told of keys that all of
// these share and gives the state for what lies below; leaf(sequence, begin, state) of one sequence's own keys from `begin` on. In the sequences' order.
template <typename State, typename Shared, typename Leaf>
void walk_shared(std::span<const std::uint32_t> common, std::uint32_t first, std::uint32_t last, std::uint32_t begin, State state, Shared&& shared,
                 Leaf&& leaf) {
  if (last - first == 1) return leaf(first, begin, state);
  const std::uint32_t least = *std::min_element(common.begin() + first + 1, common.begin() + last);
  if (least - begin >= kLeastSharedKeys) {
    state = shared(first, last, begin, least, state);
    begin = least;
  }
  for (std::uint32_t child = first, next = first; child < last; child = next) {
    for (next = child + 1; next < last && common[next] > least;) ++next;
    walk_shared(common, child, next, begin, state, shared, leaf);
  }
}

// What tuning is told of the keys that several sequences share.
struct SharedShape {
  std::uint32_t max_queries = 0;    // of those that share max_kv_len keys
  std::uint32_t total_queries = 0;  // of all branches of all trees
  std::uint64_t max_kv_len = 0, total_kv_len = 0;  // of a branch, of all
  std::uint64_t saved = 0;          // keys that need not be read once more for each sequence
};
SharedShape shared_shape(const GroupBatch& batch, std::span<const std::uint32_t> common);

}  // namespace kvant
