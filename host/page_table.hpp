// PageTable: one sequence's pages in one layer group, logical page -> page id, with holes where a sliding window has
// passed; and the runs of pages that one dispatch can reach.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "geometry.hpp"
#include "page_pool.hpp"

namespace kvant {

class PageTable {
 public:
  std::span<const std::int32_t> pages() const { return pages_; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(pages_.size()); }
  std::int32_t at(std::uint32_t index) const { return pages_[index]; }
  std::int32_t last() const { return pages_.empty() ? kNoPage : pages_.back(); }

  // So that pushes up to `count` pages allocate nothing.
  void reserve(std::uint32_t count) {
    if (count > pages_.capacity()) pages_.reserve(std::max<std::size_t>(count, pages_.capacity() * 2));
  }
  void push(std::int32_t page) { pages_.push_back(page); }
  void set(std::uint32_t index, std::int32_t page) { pages_[index] = page; }

  // Shares the first `count` pages of `parent`, adding references.
  void share(const PageTable& parent, std::uint32_t count, PagePool& pool);
  // Releases all pages from index `count` on.
  void shrink(std::uint32_t count, PagePool& pool);
  // Releases pages [begin, end), leaving holes.
  void punch(std::uint32_t begin, std::uint32_t end, PagePool& pool);
  // First hole in [begin, end), or `end`.
  std::uint32_t first_hole(std::uint32_t begin, std::uint32_t end) const;

 private:
  std::vector<std::int32_t> pages_;
};

// Maximal run of mapped pages of one slab that starts at the first mapped page of [begin, end). count 0: none is left.
struct PageRun {
  std::uint32_t begin = 0, count = 0, slab = 0;
};
PageRun next_run(std::span<const std::int32_t> pages, std::uint32_t begin, std::uint32_t end, const GroupGeometry& group);

}  // namespace kvant
