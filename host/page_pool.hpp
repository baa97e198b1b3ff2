// PagePool: ids, reference counts and the free list of one layer group's pages. A page id is all that the pool knows;
// memory is the slab store's matter. Ids of cooled pages, grade by grade, follow the others (GroupGeometry::grades): pages become such by
// move() alone, and no more than total_pages() are used of all grades together.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "geometry.hpp"

namespace kvant {

inline constexpr std::int32_t kNoPage = -1;

class PagePool {
 public:
  PagePool(std::uint32_t total_pages, std::uint32_t pages_per_slab, std::uint32_t grades = 1);

  std::uint32_t total_pages() const { return total_pages_; }
  std::uint32_t free_pages() const { return std::min(free_count_, total_pages_ - used_pages()); }
  // free_pages() after pages that are held were released: `first` of grade 0, `all` of every grade. Under a limit others' going frees nothing.
  std::uint64_t free_after(std::uint64_t first, std::uint64_t all) const {
    return std::min(free_count_ + first, total_pages_ - used_pages() + all);
  }
  std::uint32_t used_pages() const { return counts_[0].used + counts_[1].used + counts_[2].used; }
  std::uint32_t used_pages_of(std::uint32_t grade) const { return counts_[grade].used; }
  std::uint32_t high_water() const { return high_water_; }
  std::uint32_t references(std::uint32_t page) const { return references_[page]; }

  // A free page with one reference, in the slab of `neighbour` if that has one left, else in the lowest slab with room;
  // kNoPage if the pool is empty.
  std::int32_t take(std::int32_t neighbour);
  // Free ids of a grade above 0, for move().
  std::vector<std::uint32_t> free_ids(std::uint32_t grade, std::size_t count) const;
  void add_reference(std::uint32_t page);
  void release(std::uint32_t page);  // the last reference frees the page
  // Whether what the page holds has been narrowed by cooling, there or where it was copied from.
  bool recoded(std::uint32_t page) const { return recoded_[page]; }
  void set_recoded(std::uint32_t page) { recoded_[page] = true; }
  // The prefix index's own reference, at most one a page: pages held by nothing else can be had by eviction.
  void add_indexed(std::uint32_t page);
  void release_indexed(std::uint32_t page);
  std::uint32_t index_only_pages() const { return counts_[0].index_only + counts_[1].index_only + counts_[2].index_only; }
  std::uint32_t index_only_pages_of(std::uint32_t grade) const { return counts_[grade].index_only; }
  bool indexed(std::uint32_t page) const { return indexed_[page]; }
  std::uint32_t indexed_pages_of(std::uint32_t grade) const { return counts_[grade].indexed; }

  // Only pages of the first `slabs` slabs are given out from now on. Pages of others stay held until they are released or moved.
  void set_slab_limit(std::uint32_t slabs);
  std::uint32_t slab_limit() const { return slab_limit_; }
  std::uint32_t usable_pages() const;  // of the first slab_limit() slabs, and cooled ones that are used
  std::uint32_t slabs() const { return slabs_; }  // of one grade
  // Everything that is known of page `from`, which is held, becomes that of `to`, which is free.
  void move(std::uint32_t from, std::uint32_t to);

  // Test aid: permutes the free lists. With `across_slabs`, take() also picks the slab at random from then on.
  void shuffle(std::uint64_t seed, bool across_slabs);

 private:
  std::uint32_t slab_of(std::uint32_t page) const { return page / pages_per_slab_; }
  std::uint32_t pick_slab(std::int32_t neighbour);
  std::uint64_t next_random();

  struct Counts {
    std::uint32_t used = 0, index_only = 0, indexed = 0;
  };
  Counts& counts_of(std::uint32_t page) { return counts_[slab_of(page) / slabs_]; }

  std::uint32_t total_pages_, pages_per_slab_, slabs_;
  std::vector<std::uint32_t> references_;
  std::vector<bool> indexed_, recoded_;
  std::array<Counts, kMostGrades> counts_;
  std::vector<std::vector<std::uint32_t>> free_;  // per slab, a stack: lowest ids on top at first
  std::uint32_t free_count_ = 0;  // in usable slabs
  std::uint32_t slab_limit_ = 0;
  std::uint32_t high_water_ = 0;
  std::uint32_t lowest_free_slab_ = 0;  // no slab below it has a free page
  std::uint64_t random_ = 0;
  bool across_slabs_ = false;
};

}  // namespace kvant
