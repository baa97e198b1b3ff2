// PagePool: ids, reference counts and the free list of one layer group's pages. A page id is all that the pool knows;
// memory is the slab store's matter.
#pragma once

#include <cstdint>
#include <vector>

namespace kvant {

inline constexpr std::int32_t kNoPage = -1;

class PagePool {
 public:
  PagePool(std::uint32_t total_pages, std::uint32_t pages_per_slab);

  std::uint32_t total_pages() const { return static_cast<std::uint32_t>(references_.size()); }
  std::uint32_t free_pages() const { return free_count_; }
  std::uint32_t used_pages() const { return used_count_; }
  std::uint32_t high_water() const { return high_water_; }
  std::uint32_t references(std::uint32_t page) const { return references_[page]; }

  // A free page with one reference, in the slab of `neighbour` if that has one left, else in the lowest slab with room;
  // kNoPage if the pool is empty.
  std::int32_t take(std::int32_t neighbour);
  void add_reference(std::uint32_t page);
  void release(std::uint32_t page);  // the last reference frees the page
  // The prefix index's own reference, at most one a page: pages held by nothing else can be had by eviction.
  void add_indexed(std::uint32_t page);
  void release_indexed(std::uint32_t page);
  std::uint32_t index_only_pages() const { return index_only_; }
  bool indexed(std::uint32_t page) const { return indexed_[page]; }
  std::uint32_t indexed_pages() const { return indexed_count_; }

  // Only pages of the first `slabs` slabs are given out from now on. Pages of others stay held until they are released or moved.
  void set_slab_limit(std::uint32_t slabs);
  std::uint32_t slab_limit() const { return slab_limit_; }
  std::uint32_t usable_pages() const;  // of the first slab_limit() slabs
  std::uint32_t slabs() const { return static_cast<std::uint32_t>(free_.size()); }
  // Everything that is known of page `from`, which is held, becomes that of `to`, which is free.
  void move(std::uint32_t from, std::uint32_t to);

  // Test aid: permutes the free lists. With `across_slabs`, take() also picks the slab at random from then on.
  void shuffle(std::uint64_t seed, bool across_slabs);

 private:
  std::uint32_t slab_of(std::uint32_t page) const { return page / pages_per_slab_; }
  std::uint32_t pick_slab(std::int32_t neighbour);
  std::uint64_t next_random();

  std::uint32_t pages_per_slab_;
  std::vector<std::uint32_t> references_;
  std::vector<bool> indexed_;
  std::uint32_t index_only_ = 0, indexed_count_ = 0;
  std::vector<std::vector<std::uint32_t>> free_;  // per slab, a stack: lowest ids on top at first
  std::uint32_t free_count_ = 0;  // in usable slabs
  std::uint32_t used_count_ = 0;
  std::uint32_t slab_limit_ = 0;
  std::uint32_t high_water_ = 0;
  std::uint32_t lowest_free_slab_ = 0;  // no slab below it has a free page
  std::uint64_t random_ = 0;
  bool across_slabs_ = false;
};

}  // namespace kvant
