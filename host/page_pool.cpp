#include "page_pool.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace kvant {

PagePool::PagePool(std::uint32_t total_pages, std::uint32_t pages_per_slab)
    : pages_per_slab_(pages_per_slab), references_(total_pages, 0), indexed_(total_pages, false), free_count_(total_pages) {
  assert(total_pages > 0 && pages_per_slab > 0);
  free_.resize((total_pages + pages_per_slab - 1) / pages_per_slab);
  slab_limit_ = slabs();
  for (std::uint32_t page = total_pages; page-- > 0;) free_[slab_of(page)].push_back(page);
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
  if (free_count_ == 0) return kNoPage;
  std::vector<std::uint32_t>& stack = free_[pick_slab(neighbour)];
  const std::uint32_t page = stack.back();
  stack.pop_back();
  assert(references_[page] == 0);
  references_[page] = 1;
  --free_count_;
  ++used_count_;
  high_water_ = std::max(high_water_, used_pages());
  return static_cast<std::int32_t>(page);
}

void PagePool::add_reference(std::uint32_t page) {
  assert(references_[page] > 0);
  if (references_[page] == 1 && indexed_[page]) --index_only_;
  ++references_[page];
}

void PagePool::add_indexed(std::uint32_t page) {
  assert(!indexed_[page]);
  add_reference(page);
  indexed_[page] = true;
  ++indexed_count_;
}

void PagePool::release_indexed(std::uint32_t page) {
  assert(indexed_[page]);
  if (references_[page] == 1) --index_only_;
  indexed_[page] = false;
  --indexed_count_;
  release(page);
}

void PagePool::release(std::uint32_t page) {
  assert(references_[page] > 0);
  if (--references_[page] != 0) {
    if (references_[page] == 1 && indexed_[page]) ++index_only_;
    return;
  }
  assert(!indexed_[page]);
  const std::uint32_t slab = slab_of(page);
  free_[slab].push_back(page);
  --used_count_;
  if (slab >= slab_limit_) return;
  ++free_count_;
  lowest_free_slab_ = std::min(lowest_free_slab_, slab);
}

std::uint32_t PagePool::usable_pages() const {
  return std::min(total_pages(), slab_limit_ * pages_per_slab_);
}

void PagePool::set_slab_limit(std::uint32_t slab_count) {
  slab_limit_ = std::min(slab_count, slabs());
  free_count_ = 0;
  for (std::uint32_t slab = 0; slab < slab_limit_; ++slab) free_count_ += static_cast<std::uint32_t>(free_[slab].size());
  lowest_free_slab_ = 0;
}

void PagePool::move(std::uint32_t from, std::uint32_t to) {
  assert(references_[from] > 0 && references_[to] == 0);
  std::vector<std::uint32_t>& stack = free_[slab_of(to)];
  stack.erase(std::find(stack.begin(), stack.end(), to));
  references_[to] = std::exchange(references_[from], 0);
  indexed_[to] = indexed_[from];
  indexed_[from] = false;
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
