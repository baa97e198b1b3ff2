// WidePages: copies in f16 of the tokens that narrow formats hurt most: the first ones of a sequence and the newest (docs/protection.md). They lie
// in pages and slabs of their own beside the cache's, which hold every token, and attention reads a token's copy where there is one. Nothing
// depends on a copy being there: where memory is short, or K and V came another way than by append, tokens are read as they were quantized.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cache_spec.hpp"
#include "geometry.hpp"
#include "page_pool.hpp"
#include "sequence.hpp"
#include "slab_store.hpp"

namespace kvant {

class WidePages;

// References of one page's copies, by layer group, kNoPage where there is none. Ends before the WidePages they are of.
struct HeldCopies {
  WidePages& owner;
  std::vector<std::int32_t> pages;
  HeldCopies(WidePages& of, std::vector<std::int32_t> held) : owner(of), pages(std::move(held)) {}
  ~HeldCopies();
  bool shared() const;  // whether a sequence has one of them
  HeldCopies(const HeldCopies&) = delete;
  HeldCopies& operator=(const HeldCopies&) = delete;
};

class WidePages {
 public:
  // Of one step's fresh tokens of a sequence, copies are made of no more of the newest than these and the protected ones.
  static constexpr std::uint64_t kMostFresh = 512;

  // Null where `spec` protects nothing. Tells `geometry` where the planner sees the copies.
  static Result<std::unique_ptr<WidePages>> create(Executor& executor, const CacheSpec& spec, Geometry& geometry);

  bool protects(std::uint32_t group) const;  // whether a layer of the group has a protected side that is narrower than f16
  const Geometry& geometry() const { return geometry_; }
  SlabStore& slabs() { return slabs_; }
  PagePool& pool(std::uint32_t group) { return pools_[group]; }
  std::uint64_t allocated_bytes() const { return slabs_.allocated_bytes(); }
  std::uint64_t used_bytes() const;
  // What copies take at most where they may have so many bytes: whole slabs, of each group its part.
  std::uint64_t bytes_under(std::uint64_t budget) const;

  // Whether page `index` of a sequence that grows from `before` to `length` tokens is to have a copy.
  bool wants(std::uint32_t index, std::uint64_t before, std::uint64_t length) const;
  // Lets the copies go that were not among the newest when the sequence had so many tokens, and those that windows have passed. `length` is that
  // before the last committed step, so that this step can still be taken back.
  void age(Sequence& sequence, std::uint64_t length);
  // Lets the copies of the tokens of page `first` and behind it go.
  void drop(Sequence& sequence, std::uint32_t first);
  void drop_group(Sequence& sequence, std::uint32_t group);
  // Copies of a sequence's first `pages` pages are those of its child, too.
  void share(const Sequence& parent, Sequence& child, std::uint32_t pages);

  // The copies of a page that are of use to every sequence that begins alike, those of the first tokens; null: there are none.
  std::shared_ptr<const HeldCopies> hold(const Sequence& sequence, std::uint32_t index);
  // Makes them the sequence's.
  void adopt(Sequence& sequence, std::uint32_t index, const HeldCopies& copies);

  // Whether no copy lies where set_limit would take the memory away.
  bool fits(std::uint64_t budget) const;
  void set_limit(std::uint64_t budget);  // of bytes; fits(budget)
  void give_back();                      // the memory of all slabs; there are no copies

  // Whether copies of a layer that becomes `spec` lie in other formats than now. Then its group has none when set_layer tells so.
  bool changes(std::uint32_t layer, const LayerSpec& spec) const;
  void set_layer(std::uint32_t layer, const LayerSpec& spec);

 private:
  WidePages(Executor& executor, const CacheSpec& spec, Geometry geometry);
  std::uint32_t allowed_slabs(std::uint32_t group, std::uint64_t budget) const;
  std::uint64_t slabs_bytes(std::uint32_t group, std::uint32_t slabs) const;

  ProtectionSpec protection_;
  Geometry geometry_;
  SlabStore slabs_;
  std::vector<PagePool> pools_;  // per layer group
  std::vector<bool> narrow_;     // per layer: a chosen side is narrower than its copies
};

}  // namespace kvant
