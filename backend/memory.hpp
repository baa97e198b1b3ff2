// Memory: one VkBuffer with one VkDeviceMemory each (pool slabs are large and few), with the choice of memory type, the
// allocation count and the byte limit. Not thread-safe.
#pragma once

#include <optional>

#include "device.hpp"
#include "executor.hpp"

namespace kvant {

struct Buffer {
  VkBuffer handle = VK_NULL_HANDLE;
  VkDeviceMemory memory = VK_NULL_HANDLE;  // null: imported, not ours
  std::uint64_t size = 0;
  std::uint64_t allocated = 0;  // bytes of `memory`
  BufferKind kind = BufferKind::device;
  std::byte* mapped = nullptr;  // upload and readback stay mapped
  bool coherent = true;
};

// Index of the best memory type among those allowed; none when no allowed type serves the kind.
std::optional<std::uint32_t> choose_memory_type(const std::vector<MemoryType>& types, std::uint32_t allowed_bits,
                                                BufferKind kind);
// Most bytes of one buffer of a kind: slabs have a limit of their own; 0 where the device has no memory for it.
std::uint64_t max_buffer_bytes(const DevicePlan& plan, BufferKind kind);

class Memory {
 public:
  // `limit`: bytes that may be held at once; 0 = no own limit.
  Memory(Device& device, const DevicePlan& plan, std::uint64_t limit) : device_(device), plan_(plan), limit_(limit) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Errors: resource_exhausted naming size and heap; on any error nothing has changed.
  Result<Buffer> create(std::uint64_t size, BufferKind kind);
  void destroy(const Buffer& buffer);

  // Make host writes visible to the device, and device writes to the host; nothing to do on coherent memory.
  Status flush(const Buffer& buffer, std::uint64_t offset, std::uint64_t size);
  Status invalidate(const Buffer& buffer, std::uint64_t offset, std::uint64_t size);

  std::uint64_t bytes() const { return bytes_; }
  std::uint32_t allocations() const { return allocations_; }

 private:
  VkMappedMemoryRange mapped_range(const Buffer& buffer, std::uint64_t offset, std::uint64_t size) const;

  Device& device_;
  const DevicePlan& plan_;
  std::uint64_t limit_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint32_t allocations_ = 0;
};

}  // namespace kvant
