#include "memory_prune.hpp"

#include <algorithm>

#include "checked.hpp"

namespace kvant {
namespace {

// One layer group's pool while sequence after sequence is pruned, as CacheImpl::move_tokens does it.
class PoolSketch {
 public:
  explicit PoolSketch(const MemoryGroup& group)
      : references_(group.references), published_(group.published), free_(std::uint64_t{group.free_pages} + group.index_pages) {}

  bool prune(std::span<const std::int32_t> pages, std::uint64_t cold_pages, std::uint64_t kept_pages) {
    if (cold_pages > free_) return false;  // in the worst case all are needed at once
    std::uint64_t own = 0;
    for (const std::int32_t page : pages) own += is_own(page) ? 1 : 0;
    const std::uint64_t taken = kept_pages <= free_ ? kept_pages : kept_pages - std::min(kept_pages, own);
    if (taken > free_) return false;
    const std::uint64_t reused = kept_pages - taken;
    free_ = free_ - taken + own - reused;
    for (const std::int32_t page : pages)
      if (!is_own(page)) --references_[static_cast<std::size_t>(page)];
    return true;
  }

 private:
  // Held by the sequence alone, or by the prefix cache besides, which lets it go.
  bool is_own(std::int32_t page) const {
    const auto p = static_cast<std::size_t>(page);
    return references_[p] == (published_[p] ? 2U : 1U);
  }

  std::vector<std::uint32_t> references_;
  std::vector<bool> published_;
  std::uint64_t free_;
};

}  // namespace

bool prune_has_room(const MemoryState& state, std::span<const std::uint64_t> kept) {
  for (std::size_t g = 0; g < state.groups.size(); ++g) {
    PoolSketch pool(state.groups[g]);
    for (std::size_t s = 0; s < state.sequences.size(); ++s) {
      const MemorySequence& sequence = state.sequences[s];
      if (kept[s] < sequence.length && !pool.prune(sequence.pages[g], g < sequence.cold_pages.size() ? sequence.cold_pages[g] : 0, divide_up(kept[s], state.page_tokens)))
        return false;
    }
  }
  return true;
}

}  // namespace kvant
