// WidePages: copies in f16 of the tokens that narrow formats hurt most: the first ones of a sequence and the newest (docs/protection.md). They lie
// in pages and slabs of their own beside the cache's, which hold every token, and attention reads a token's copy where there is one. Nothing
// depends on a copy being there: where memory is short, or K and V came another way than by append, tokens are read as they were quantized.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cache.hpp"
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

  // Null where `spec` protects nothing that is narrower than f16. Tells `geometry` where the planner sees the copies.
  static Result<std::unique_ptr<WidePages>> create(Executor& executor, const CacheSpec& spec, Geometry& geometry);

  bool protects(std::uint32_t group) const { return protected_[group]; }
  const Geometry& geometry() const { return geometry_; }
  SlabStore& slabs() { return slabs_; }
  PagePool& pool(std::uint32_t group) { return pools_[group]; }
  std::uint64_t allocated_bytes() const { return slabs_.allocated_bytes(); }
  std::uint64_t used_bytes() const;
  std::uint64_t most_bytes() const;  // if every slab were there

  // Whether page `index` of a sequence that grows from `before` to `length` tokens is to have a copy.
  bool wants(std::uint32_t index, std::uint64_t before, std::uint64_t length) const;
  // Lets the copies go that are no longer among the newest, after a sequence has grown so.
  void age(Sequence& sequence, std::uint64_t before);
  // Lets the copies of the tokens of page `first` and behind it go.
  void drop(Sequence& sequence, std::uint32_t first);
  // Copies of a sequence's first `pages` pages are those of its child, too.
  void share(const Sequence& parent, Sequence& child, std::uint32_t pages);

  // The copies of a page that are of use to every sequence that begins alike, those of the first tokens; null: there are none.
  std::shared_ptr<const HeldCopies> hold(const Sequence& sequence, std::uint32_t index);
  // Makes them the sequence's.
  void adopt(Sequence& sequence, std::uint32_t index, const HeldCopies& copies);

  // No more memory than `bytes`. No sequence has copies if that is less than most_bytes().
  void set_limit(std::uint64_t bytes);
  // Gives all memory back, and takes a layer's formats for those that are not f16. No sequence has copies.
  void reset(std::uint32_t layer, const LayerSpec& spec);

 private:
  WidePages(Executor& executor, const CacheSpec& spec, Geometry geometry, std::vector<bool> groups);

  ProtectionSpec protection_;
  Geometry geometry_;
  SlabStore slabs_;
  std::vector<PagePool> pools_;   // per layer group
  std::vector<bool> protected_;   // per layer group
};

}  // namespace kvant
