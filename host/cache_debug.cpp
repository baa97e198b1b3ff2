// CacheImpl: test access.
#include <cassert>

#include "cache_impl.hpp"

namespace kvant {

CacheDebug& cache_debug(Cache& cache) { return static_cast<CacheImpl&>(cache); }

// Fills new slabs and freshly taken pages, if poisoning is on. Ordered before everything submitted later.
Status CacheImpl::poison_pages(std::span<const SlabId> new_slabs, std::span<const TakenPage> pages) {
  if (!poison_ || (new_slabs.empty() && pages.empty())) return {};
  list_.clear();
  for (const SlabId& id : new_slabs)
    for (std::uint32_t layer : geometry_.groups[id.group].layers)
      list_.add_fill({{slabs_.buffer(layer, id.slab), 0, slabs_.layout(layer, id.slab).total_bytes}, *poison_},
                     "poison", false);
  for (const SlabId& id : new_slabs)
    if (const BufferRange mass = slabs_.mass(id.group, id.slab); mass.buffer != BufferId::none)
      list_.add_fill({mass, *poison_}, "poison", false);
  bool barrier = true;
  for (const TakenPage& taken : pages)
    for (std::uint32_t layer : geometry_.groups[taken.group].layers)
      for (Side side : {Side::k, Side::v}) {
        list_.add_fill({page_range(layer, side, static_cast<std::uint32_t>(taken.page)), *poison_}, "poison", barrier);
        barrier = false;
      }
  return executor_.submit(list_).status();
}

Status CacheImpl::poison_copies(std::span<const SlabId> new_slabs) {
  if (!poison_ || new_slabs.empty()) return {};
  list_.clear();
  for (const SlabId& id : new_slabs)
    for (const std::uint32_t layer : geometry_.groups[id.group].layers)
      list_.add_fill({{wide_->slabs().buffer(layer, id.slab), 0, wide_->slabs().layout(layer, id.slab).total_bytes}, *poison_}, "poison", false);
  return executor_.submit(list_).status();
}

Status CacheImpl::poison_free_pages(std::uint32_t word) {
  list_.clear();
  for (std::uint32_t g = 0; g < pools_.size(); ++g)
    for (std::uint32_t slab = 0; slab < geometry_.groups[g].slab_ids(); ++slab)
      for (std::uint32_t i = 0; i < geometry_.groups[g].pages_in(slab) && slabs_.allocated({g, slab}); ++i) {
        const std::uint32_t page = geometry_.groups[g].first_page(slab) + i;
        if (pools_[g].references(page) != 0) continue;
        for (const std::uint32_t layer : geometry_.groups[g].layers)
          for (const Side side : {Side::k, Side::v}) list_.add_fill({page_range(layer, side, page), word}, "poison", false);
      }
  return list_.commands.empty() ? Status{} : executor_.submit(list_).status();
}

void CacheImpl::shuffle_free_pages(std::uint64_t seed, bool across_slabs) {
  for (PagePool& pool : pools_) pool.shuffle(seed, across_slabs);
}

Result<std::vector<std::int32_t>> CacheImpl::sequence_pages(SequenceId id, std::uint32_t layer) const {
  KVANT_ASSIGN(const Sequence* const sequence, find(id));
  KVANT_TRY(check_layer(layer));
  const auto pages = sequence->tables[geometry_.layers[layer].group].pages();
  return std::vector<std::int32_t>(pages.begin(), pages.end());
}

std::uint32_t CacheImpl::page_references(std::uint32_t layer, std::uint32_t page) const {
  return pools_[geometry_.layers[layer].group].references(page);
}

BufferRange CacheImpl::page_range(std::uint32_t layer, Side side, std::uint32_t page) const {
  const GroupGeometry& group = geometry_.group_of(layer);
  assert(page < group.page_ids());
  const std::uint32_t slab = group.slab_of(page);
  if (slabs_.buffer(layer, slab) == BufferId::none) return {};
  const std::uint64_t bytes = geometry_.layers[layer].side(side, group.grade_of(slab)).page_bytes;
  const BufferRange region = slabs_.region(layer, side, slab);
  return {region.buffer, region.offset + (page - group.first_page(slab)) * bytes, bytes};
}

}  // namespace kvant
