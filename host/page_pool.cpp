#include "page_pool.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace kvant {

PagePool::PagePool(std::uint32_t total_pages, std::uint32_t pages_per_slab, std::uint32_t grades)
    : total_pages_(total_pages), pages_per_slab_(pages_per_slab), slabs_((total_pages + pages_per_slab - 1) / pages_per_slab), free_count_(total_pages) {
  assert(total_pages > 0 && pages_per_slab > 0 && grades > 0 && grades <= kMostGrades);
  const std::uint32_t stride = slabs_ * pages_per_slab;  // from a page's id to that of a page of the next grade
  references_.assign((grades - 1) * stride + total_pages, 0);
  indexed_.assign(references_.size(), false);
  recoded_.assign(references_.size(), false);
  free_.resize(std::size_t{grades} * slabs_);
  slab_limit_ = slabs_;
  for (std::uint32_t grade = 0; grade < grades; ++grade)
    for (std::uint32_t page = grade * stride + total_pages; page-- > grade * stride;) free_[slab_of(page)].push_back(page);
}

std::uint32_t PagePool::pick_slab(std::int32_t neighbour) {
  if (across_slabs_) {
    // Any slab with room, starting at a random one: fair enough to scatter pages.
    auto slab = static_cast<std::uint32_t>(next_random() % slab_limit_);
    while (free_[slab].empty()) slab = (slab + 1) % slab_limit_;
    return slab;
  }
  if (neighbour != kNoPage) {
    const std::uint32_t slab = slab_of(static_cast<std::uint32_t>(neighbour));
    if (slab < slab_limit_ && !free_[slab].empty()) return slab;
  }
  while (free_[lowest_free_slab_].empty()) ++lowest_free_slab_;
  return lowest_free_slab_;
}

std::int32_t PagePool::take(std::int32_t neighbour) {
  if (free_pages() == 0) return kNoPage;
  std::vector<std::uint32_t>& stack = free_[pick_slab(neighbour)];
  const std::uint32_t page = stack.back();
  stack.pop_back();
  assert(references_[page] == 0);
  references_[page] = 1;
  recoded_[page] = false;
  --free_count_;
  ++counts_[0].used;
  high_water_ = std::max(high_water_, used_pages());
  return static_cast<std::int32_t>(page);
}

std::vector<std::uint32_t> PagePool::free_ids(std::uint32_t grade, std::size_t count) const {
  std::vector<std::uint32_t> ids;
  for (std::uint32_t slab = grade * slabs_; ids.size() < count; ++slab)  // a grade has ids for all pages
    for (auto page = free_[slab].rbegin(); page != free_[slab].rend() && ids.size() < count; ++page) ids.push_back(*page);
  return ids;
}

void PagePool::add_reference(std::uint32_t page) {
  assert(references_[page] > 0);
  if (references_[page] == 1 && indexed_[page]) --counts_of(page).index_only;
  ++references_[page];
}

void PagePool::add_indexed(std::uint32_t page) {
  assert(!indexed_[page]);
  add_reference(page);
  indexed_[page] = true;
  ++counts_of(page).indexed;
}

void PagePool::release_indexed(std::uint32_t page) {
  assert(indexed_[page]);
  if (references_[page] == 1) --counts_of(page).index_only;
  indexed_[page] = false;
  --counts_of(page).indexed;
  release(page);
}

void PagePool::release(std::uint32_t page) {
  assert(references_[page] > 0);
  if (--references_[page] != 0) {
    if (references_[page] == 1 && indexed_[page]) ++counts_of(page).index_only;
    return;
  }
  assert(!indexed_[page]);
  const std::uint32_t slab = slab_of(page);
  free_[slab].push_back(page);
  --counts_of(page).used;
  if (slab >= slab_limit_) return;
  ++free_count_;
  lowest_free_slab_ = std::min(lowest_free_slab_, slab);
}

std::uint32_t PagePool::usable_pages() const {
  return std::min(total_pages(), slab_limit_ * pages_per_slab_ + counts_[1].used + counts_[2].used);
}

void PagePool::set_slab_limit(std::uint32_t slab_count) {
  slab_limit_ = std::min(slab_count, slabs());
  free_count_ = 0;
  for (std::uint32_t slab = 0; slab < slab_limit_; ++slab) free_count_ += static_cast<std::uint32_t>(free_[slab].size());
  lowest_free_slab_ = 0;
}

void PagePool::move(std::uint32_t from, std::uint32_t to) {
  assert(references_[from] > 0 && references_[to] == 0);
  const bool index_only = references_[from] == 1 && indexed_[from];
  for (const auto& [page, sign] : {std::pair{from, -1}, std::pair{to, 1}}) {
    Counts& counts = counts_of(page);
    const auto add = static_cast<std::uint32_t>(sign);  // modulo 2^32
    counts.used += add;
    if (indexed_[from]) counts.indexed += add;
    if (index_only) counts.index_only += add;
  }
  std::vector<std::uint32_t>& stack = free_[slab_of(to)];
  stack.erase(std::find(stack.rbegin(), stack.rend(), to).base() - 1);  // most are near the top
  references_[to] = std::exchange(references_[from], 0);
  indexed_[to] = indexed_[from];
  indexed_[from] = false;
  recoded_[to] = recoded_[from] || slab_of(to) >= slabs_;
  free_[slab_of(from)].push_back(from);
  if (slab_of(to) < slab_limit_) --free_count_;
  if (slab_of(from) < slab_limit_) ++free_count_;
  lowest_free_slab_ = std::min(lowest_free_slab_, slab_of(from));
}

std::uint64_t PagePool::next_random() {  // splitmix64
  std::uint64_t z = (random_ += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

void PagePool::shuffle(std::uint64_t seed, bool across_slabs) {
  random_ = seed;
  across_slabs_ = across_slabs;
  for (std::vector<std::uint32_t>& stack : free_)
    for (std::size_t i = stack.size(); i > 1; --i)
      std::swap(stack[i - 1], stack[static_cast<std::size_t>(next_random() % i)]);
}

}  // namespace kvant
