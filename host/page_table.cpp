#include "page_table.hpp"

#include <algorithm>
#include <cassert>

namespace kvant {

void PageTable::share(const PageTable& parent, std::uint32_t count, PagePool& pool) {
  assert(pages_.empty() && count <= parent.size());
  pages_.assign(parent.pages_.begin(), parent.pages_.begin() + count);
  for (std::int32_t page : pages_)
    if (page != kNoPage) pool.add_reference(static_cast<std::uint32_t>(page));
}

void PageTable::shrink(std::uint32_t count, PagePool& pool) {
  assert(count <= size());
  punch(count, size(), pool);
  pages_.resize(count);
}

void PageTable::punch(std::uint32_t begin, std::uint32_t end, PagePool& pool) {
  for (std::uint32_t i = begin; i < end; ++i) {
    if (pages_[i] != kNoPage) pool.release(static_cast<std::uint32_t>(pages_[i]));
    pages_[i] = kNoPage;
  }
}

std::uint32_t PageTable::first_hole(std::uint32_t begin, std::uint32_t end) const {
  const auto first = pages_.begin() + begin, last = pages_.begin() + end;
  return static_cast<std::uint32_t>(std::find(first, last, kNoPage) - pages_.begin());
}

PageRun next_run(std::span<const std::int32_t> pages, std::uint32_t begin, std::uint32_t end, const GroupGeometry& group) {
  while (begin < end && pages[begin] == kNoPage) ++begin;
  PageRun run{begin, 0, 0};
  if (begin == end) return run;
  run.slab = group.slab_of(static_cast<std::uint32_t>(pages[begin]));
  while (begin + run.count < end && pages[begin + run.count] != kNoPage &&
         group.slab_of(static_cast<std::uint32_t>(pages[begin + run.count])) == run.slab)
    ++run.count;
  return run;
}

}  // namespace kvant
