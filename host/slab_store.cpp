#include "slab_store.hpp"

#include <string>
#include <utility>

#include "rollback.hpp"

namespace kvant {

SlabStore::SlabStore(Executor& executor, const Geometry& geometry) : executor_(executor), geometry_(geometry) {
  for (std::uint32_t layer = 0; layer < geometry.layers.size(); ++layer)
    layers_.emplace_back(geometry.group_of(layer).slab_ids(), BufferId::none);
  for (const GroupGeometry& group : geometry.groups) masses_.emplace_back(group.slab_ids(), BufferId::none);
}

SlabStore::~SlabStore() {
  for (const auto* all : {&layers_, &masses_})
    for (const std::vector<BufferId>& slabs : *all)
      for (BufferId buffer : slabs) executor_.destroy_buffer(buffer);
}

SlabLayout SlabStore::layout(std::uint32_t layer, std::uint32_t slab) const {
  const GroupGeometry& group = geometry_.group_of(layer);
  return slab_layout(geometry_.layers[layer], group.pages_in(slab), geometry_.region_alignment, group.grade_of(slab));
}

BufferRange SlabStore::region(std::uint32_t layer, Side side, std::uint32_t slab) const {
  const SlabLayout slab_bytes = layout(layer, slab);
  const auto s = static_cast<std::size_t>(side);
  return {layers_[layer][slab], slab_bytes.offset[s], slab_bytes.bytes[s]};
}

BufferRange SlabStore::mass(std::uint32_t group, std::uint32_t slab) const {
  const BufferId buffer = masses_[group][slab];
  return buffer == BufferId::none ? BufferRange{} : BufferRange{buffer, 0, mass_bytes({group, slab})};
}

// On error what was created of it stays, for destroy_slab.
Status SlabStore::create_slab(SlabId id) {
  const auto create = [&](std::uint64_t bytes, const std::string& owner, BufferId& out) -> Status {
    Result<BufferId> buffer = executor_.create_buffer(bytes, BufferKind::device);
    if (!buffer.ok())
      return {buffer.status().code(), "slab " + std::to_string(id.slab) + " of " + owner + " (" + std::to_string(bytes) +
                                          " bytes): " + buffer.status().message()};
    out = buffer.value();
    allocated_bytes_ += bytes;
    return {};
  };
  for (std::uint32_t layer : geometry_.groups[id.group].layers)
    KVANT_TRY(create(layout(layer, id.slab).total_bytes, "layer " + std::to_string(layer), layers_[layer][id.slab]));
  if (const std::uint64_t bytes = mass_bytes(id); bytes != 0)
    KVANT_TRY(create(bytes, "the attention mass of layer group " + std::to_string(id.group), masses_[id.group][id.slab]));
  return {};
}

void SlabStore::destroy_slab(SlabId id) {
  const auto destroy = [&](std::uint64_t bytes, BufferId& buffer) {
    if (buffer == BufferId::none) return;
    allocated_bytes_ -= bytes;
    executor_.destroy_buffer(std::exchange(buffer, BufferId::none));
  };
  for (std::uint32_t layer : geometry_.groups[id.group].layers)
    destroy(layout(layer, id.slab).total_bytes, layers_[layer][id.slab]);
  destroy(mass_bytes(id), masses_[id.group][id.slab]);
}

Status SlabStore::ensure(std::span<const SlabId> slabs, std::vector<SlabId>* created) {
  std::vector<SlabId> fresh;
  Rollback undo([&] {
    for (const SlabId& slab : fresh) destroy_slab(slab);
  });
  for (const SlabId& id : slabs) {
    if (allocated(id)) continue;
    fresh.push_back(id);
    KVANT_TRY(create_slab(id));
  }
  if (created != nullptr) created->insert(created->end(), fresh.begin(), fresh.end());
  undo.complete();
  return {};
}

void SlabStore::release(std::uint32_t group, std::uint32_t first, std::uint32_t grade) {
  const std::uint32_t slabs = geometry_.groups[group].slab_count;
  for (std::uint32_t slab = first; slab < slabs; ++slab) destroy_slab({group, grade * slabs + slab});
}

std::uint64_t SlabStore::slab_bytes(SlabId id) const {
  std::uint64_t bytes = mass_bytes(id);
  for (const std::uint32_t layer : geometry_.groups[id.group].layers) bytes += layout(layer, id.slab).total_bytes;
  return bytes;
}

void SlabStore::replace(std::uint32_t layer, std::vector<BufferId> buffers, std::uint64_t old_bytes,
                        std::uint64_t new_bytes) {
  for (BufferId buffer : layers_[layer]) executor_.destroy_buffer(buffer);
  layers_[layer] = std::move(buffers);
  allocated_bytes_ = allocated_bytes_ - old_bytes + new_bytes;
}

}  // namespace kvant
