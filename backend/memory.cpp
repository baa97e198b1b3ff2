#include "memory.hpp"

#include <algorithm>

#include "rollback.hpp"

namespace kvant {
namespace {

constexpr std::uint32_t kUsualFlags =
    memory_device_local | memory_host_visible | memory_host_coherent | memory_host_cached;

constexpr std::uint32_t kHostMemory = memory_host_visible | memory_host_coherent | memory_host_cached;

// Higher is better; negative: not usable.
int score(std::uint32_t flags, BufferKind kind) {
  if ((flags & ~kUsualFlags) != 0) return -1;  // lazily allocated, protected, device-uncached, remote: none is for us
  const bool local = (flags & memory_device_local) != 0, visible = (flags & memory_host_visible) != 0;
  const bool coherent = (flags & memory_host_coherent) != 0, cached = (flags & memory_host_cached) != 0;
  switch (kind) {
    case BufferKind::device:
    case BufferKind::unified:
      return (local ? 8 : 0) + (visible ? 0 : 2) + (cached ? 0 : 1);
    case BufferKind::upload:
      return visible ? (coherent ? 8 : 0) + (cached ? 0 : 2) + (local ? 0 : 1) : -1;
    case BufferKind::readback:
      return visible ? (cached ? 8 : 0) + (coherent ? 4 : 0) + (local ? 0 : 1) : -1;
    case BufferKind::shared:
      return visible && cached && coherent ? (local ? 0 : 1) : -1;
  }
  return -1;
}

const char* kind_name(BufferKind kind) {
  switch (kind) {
    case BufferKind::device:
      return "device";
    case BufferKind::unified:
      return "unified";
    case BufferKind::upload:
      return "upload";
    case BufferKind::readback:
      return "readback";
    case BufferKind::shared:
      return "shared";
  }
  return "?";
}

}  // namespace

std::optional<std::uint32_t> choose_memory_type(const std::vector<MemoryType>& types, std::uint32_t allowed_bits,
                                                BufferKind kind) {
  std::optional<std::uint32_t> best;
  int best_score = -1;
  for (std::uint32_t i = 0; i < types.size() && i < 32; ++i) {
    if ((allowed_bits >> i & 1U) == 0) continue;
    if (const int s = score(types[i].flags, kind); s > best_score) {
      best = i;
      best_score = s;
    }
  }
  return best;
}

std::uint64_t max_buffer_bytes(const DevicePlan& plan, BufferKind kind) {
  if (kind != BufferKind::shared) return plan.max_slab_bytes;
  if (!choose_memory_type(plan.snapshot.memory_types, ~0U, kind)) return 0;
  return std::min(plan.snapshot.max_allocation_bytes, plan.snapshot.max_buffer_bytes);
}

Result<Buffer> Memory::create(std::uint64_t size, BufferKind kind) {
  const std::string what = std::string(kind_name(kind)) + " buffer of " + std::to_string(size) + " bytes";
  if (size == 0) return Status(StatusCode::invalid_argument, what + " is empty");
  const std::uint64_t most = max_buffer_bytes(plan_, kind);
  if (most == 0) return Status(StatusCode::unimplemented, "no memory type of the device serves a " + what);
  if (size > most) {
    return Status(StatusCode::invalid_argument,
                  what + " is larger than one buffer of this device may be (" + std::to_string(most) + ")");
  }
  if (limit_ != 0 && (bytes_ > limit_ || size > limit_ - bytes_)) {
    return Status(StatusCode::resource_exhausted, what + " does not fit: " + std::to_string(bytes_) +
                                                      " of the memory limit of " + std::to_string(limit_) +
                                                      " bytes are in use");
  }
  if (plan_.snapshot.max_allocations != 0 && allocations_ >= plan_.snapshot.max_allocations) {
    return Status(StatusCode::resource_exhausted, what + " would be one more than the " + std::to_string(allocations_) +
                                                      " allocations that the device allows");
  }

  const DeviceFunctions& vk = device_.vk();
  Buffer buffer;
  buffer.size = size;
  buffer.kind = kind;
  VkBufferCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.size = size;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  info.sharingMode = VK_SHARING_MODE_EXCLUSIVE;
  VkResult result = device_.note(vk.vkCreateBuffer(device_.handle(), &info, nullptr, &buffer.handle));
  if (result != VK_SUCCESS) return vk_status(result, "creating a " + what);
  Rollback undo([&] {
    vk.vkDestroyBuffer(device_.handle(), buffer.handle, nullptr);
    if (buffer.memory != VK_NULL_HANDLE) vk.vkFreeMemory(device_.handle(), buffer.memory, nullptr);
  });

  VkMemoryRequirements requirements{};
  vk.vkGetBufferMemoryRequirements(device_.handle(), buffer.handle, &requirements);
  const auto& types = plan_.snapshot.memory_types;
  const auto type = choose_memory_type(types, requirements.memoryTypeBits, kind);
  if (!type) return Status(StatusCode::unimplemented, "no memory type of the device serves a " + what);
  const std::uint32_t heap = types[*type].heap;
  const std::string where = " from heap " + std::to_string(heap) + " of " +
                            std::to_string(heap < plan_.snapshot.heaps.size() ? plan_.snapshot.heaps[heap].size : 0) +
                            " bytes";
  VkMemoryAllocateInfo allocate{};
  allocate.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  allocate.allocationSize = requirements.size;
  allocate.memoryTypeIndex = *type;
  result = device_.note(vk.vkAllocateMemory(device_.handle(), &allocate, nullptr, &buffer.memory));
  if (result == VK_SUCCESS)
    result = device_.note(vk.vkBindBufferMemory(device_.handle(), buffer.handle, buffer.memory, 0));
  const bool as_host_memory = (types[*type].flags & kHostMemory) == kHostMemory;
  if (result == VK_SUCCESS && kind != BufferKind::device && (kind != BufferKind::unified || as_host_memory)) {
    void* pointer = nullptr;
    const VkResult mapped = device_.note(vk.vkMapMemory(device_.handle(), buffer.memory, 0, VK_WHOLE_SIZE, 0, &pointer));
    buffer.mapped = mapped == VK_SUCCESS ? static_cast<std::byte*>(pointer) : nullptr;
    if (kind != BufferKind::unified) result = mapped;
  }
  if (result != VK_SUCCESS) return vk_status(result, "allocating a " + what + where);
  undo.complete();
  buffer.coherent = (types[*type].flags & memory_host_coherent) != 0;
  buffer.allocated = requirements.size;
  bytes_ += buffer.allocated;
  ++allocations_;
  return buffer;
}

void Memory::destroy(const Buffer& buffer) {
  if (buffer.memory == VK_NULL_HANDLE) return;
  device_.vk().vkDestroyBuffer(device_.handle(), buffer.handle, nullptr);
  device_.vk().vkFreeMemory(device_.handle(), buffer.memory, nullptr);
  bytes_ -= buffer.allocated;
  --allocations_;
}

VkMappedMemoryRange Memory::mapped_range(const Buffer& buffer, std::uint64_t offset, std::uint64_t size) const {
  const std::uint64_t atom = plan_.snapshot.non_coherent_atom == 0 ? 1 : plan_.snapshot.non_coherent_atom;
  VkMappedMemoryRange range{};
  range.sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE;
  range.memory = buffer.memory;
  range.offset = offset / atom * atom;
  const std::uint64_t end = (offset + size + atom - 1) / atom * atom;
  range.size = end >= buffer.allocated ? VK_WHOLE_SIZE : end - range.offset;
  return range;
}

Status Memory::flush(const Buffer& buffer, std::uint64_t offset, std::uint64_t size) {
  if (buffer.coherent || buffer.mapped == nullptr) return {};
  const VkMappedMemoryRange range = mapped_range(buffer, offset, size);
  return vk_status(device_.note(device_.vk().vkFlushMappedMemoryRanges(device_.handle(), 1, &range)),
                   "flushing staged data");
}

Status Memory::invalidate(const Buffer& buffer, std::uint64_t offset, std::uint64_t size) {
  if (buffer.coherent || buffer.mapped == nullptr) return {};
  const VkMappedMemoryRange range = mapped_range(buffer, offset, size);
  return vk_status(device_.note(device_.vk().vkInvalidateMappedMemoryRanges(device_.handle(), 1, &range)),
                   "reading back staged data");
}

}  // namespace kvant
