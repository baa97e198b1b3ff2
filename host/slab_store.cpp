#include "slab_store.hpp"

#include <string>
#include <utility>

namespace kvant {

SlabStore::SlabStore(Executor& executor, const Geometry& geometry) : executor_(executor), geometry_(geometry) {
  for (std::uint32_t layer = 0; layer < geometry.layers.size(); ++layer)
    layers_.emplace_back(geometry.group_of(layer).slab_count, BufferId::none);
}

SlabStore::~SlabStore() {
  for (const std::vector<BufferId>& slabs : layers_)
    for (BufferId buffer : slabs) executor_.destroy_buffer(buffer);
}

SlabLayout SlabStore::layout(std::uint32_t layer, std::uint32_t slab) const {
  return slab_layout(geometry_.layers[layer], geometry_.group_of(layer).pages_in(slab), geometry_.region_alignment);
}

BufferRange SlabStore::region(std::uint32_t layer, Side side, std::uint32_t slab) const {
  const SlabLayout slab_bytes = layout(layer, slab);
  const auto s = static_cast<std::size_t>(side);
  return {layers_[layer][slab], slab_bytes.offset[s], slab_bytes.bytes[s]};
}

Status SlabStore::ensure(std::span<const SlabId> slabs, std::vector<SlabId>* created) {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> fresh;  // (layer, slab)
  for (const SlabId& id : slabs) {
    if (allocated(id)) continue;
    for (std::uint32_t layer : geometry_.groups[id.group].layers) {
      const std::uint64_t bytes = layout(layer, id.slab).total_bytes;
      Result<BufferId> buffer = executor_.create_buffer(bytes, BufferKind::device);
      if (!buffer.ok()) {
        for (const auto& [l, s] : fresh) {
          allocated_bytes_ -= layout(l, s).total_bytes;
          executor_.destroy_buffer(std::exchange(layers_[l][s], BufferId::none));
        }
        return {buffer.status().code(), "slab " + std::to_string(id.slab) + " of layer " + std::to_string(layer) +
                                            " (" + std::to_string(bytes) + " bytes): " + buffer.status().message()};
      }
      layers_[layer][id.slab] = buffer.value();
      allocated_bytes_ += bytes;
      fresh.emplace_back(layer, id.slab);
    }
  }
  if (created != nullptr)
    for (const auto& [layer, slab] : fresh)
      if (const std::uint32_t group = geometry_.layers[layer].group; first_layer(group) == layer)
        created->push_back({group, slab});
  return {};
}

void SlabStore::release(std::uint32_t group, std::uint32_t first) {
  for (const std::uint32_t layer : geometry_.groups[group].layers)
    for (std::uint32_t slab = first; slab < layers_[layer].size(); ++slab) {
      if (layers_[layer][slab] == BufferId::none) continue;
      allocated_bytes_ -= layout(layer, slab).total_bytes;
      executor_.destroy_buffer(std::exchange(layers_[layer][slab], BufferId::none));
    }
}

void SlabStore::replace(std::uint32_t layer, std::vector<BufferId> buffers, std::uint64_t old_bytes,
                        std::uint64_t new_bytes) {
  for (BufferId buffer : layers_[layer]) executor_.destroy_buffer(buffer);
  layers_[layer] = std::move(buffers);
  allocated_bytes_ = allocated_bytes_ - old_bytes + new_bytes;
}

}  // namespace kvant
