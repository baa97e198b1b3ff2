// SlabStore: the device memory of a cache's pages. One buffer per (layer, slab index), a K region and a V region in it, and, if
// the cache counts attention mass, one per (group, slab index) for that; allocated when a page of that slab is first used.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "geometry.hpp"

namespace kvant {

struct SlabId {
  std::uint32_t group = 0, slab = 0;
  bool operator==(const SlabId&) const = default;
};

class SlabStore {
 public:
  SlabStore(Executor& executor, const Geometry& geometry);
  ~SlabStore();
  SlabStore(const SlabStore&) = delete;
  SlabStore& operator=(const SlabStore&) = delete;

  bool allocated(SlabId id) const {
    return !layers_.empty() && buffer(first_layer(id.group), id.slab) != BufferId::none;
  }
  // Allocates the slabs that are not there yet, for all layers of their groups: all or none. `created` (may be null) is
  // given those that are new.
  Status ensure(std::span<const SlabId> slabs, std::vector<SlabId>* created);

  // Gives back the memory of a grade's slabs from its slab `first` on, in all layers of the group. No page of theirs is held.
  void release(std::uint32_t group, std::uint32_t first, std::uint32_t grade = 0);

  // The memory of slabs of which no page is held.
  void give_back(std::span<const SlabId> slabs) {
    for (const SlabId& slab : slabs) destroy_slab(slab);
  }

  BufferId buffer(std::uint32_t layer, std::uint32_t slab) const { return layers_[layer][slab]; }
  SlabLayout layout(std::uint32_t layer, std::uint32_t slab) const;
  BufferRange region(std::uint32_t layer, Side side, std::uint32_t slab) const;
  // Attention mass of a slab's pages; empty if the cache counts none.
  BufferRange mass(std::uint32_t group, std::uint32_t slab) const;
  std::uint64_t allocated_bytes() const { return allocated_bytes_; }
  std::uint64_t slab_bytes(SlabId id) const;  // allocated or not, all layers of the group and their attention mass

  // Replaces all slabs of a layer after its geometry changed; `buffers` by slab index, none where there was none. The
  // old ones are destroyed; `old_bytes` and `new_bytes` keep the books.
  void replace(std::uint32_t layer, std::vector<BufferId> buffers, std::uint64_t old_bytes, std::uint64_t new_bytes);

 private:
  std::uint32_t first_layer(std::uint32_t group) const { return geometry_.groups[group].layers.front(); }
  Status create_slab(SlabId id);
  void destroy_slab(SlabId id);
  std::uint64_t mass_bytes(SlabId id) const {
    return geometry_.groups[id.group].mass_page_bytes * geometry_.groups[id.group].pages_in(id.slab);
  }

  Executor& executor_;
  const Geometry& geometry_;
  std::vector<std::vector<BufferId>> layers_;  // [layer][slab]
  std::vector<std::vector<BufferId>> masses_;  // [group][slab]
  std::uint64_t allocated_bytes_ = 0;
};

}  // namespace kvant
