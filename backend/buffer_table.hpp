// BufferTable: BufferId -> Buffer. Ids are never reused; a destroyed buffer lives on until the last submit that named
// it has completed. Not thread-safe.
#pragma once

#include <unordered_map>
#include <vector>

#include "memory.hpp"
#include "timeline.hpp"

namespace kvant {

class BufferTable {
 public:
  BufferTable(Memory& memory, Timeline& timeline) : memory_(memory), timeline_(timeline) {}
  ~BufferTable();
  BufferTable(const BufferTable&) = delete;
  BufferTable& operator=(const BufferTable&) = delete;

  // When memory is out it first waits for buffers whose destruction is pending, then tries once more.
  Result<BufferId> create(std::uint64_t size, BufferKind kind);
  BufferId import(VkBuffer handle, std::uint64_t size);
  void destroy(BufferId id);

  // Null when there is no such buffer (any more).
  const Buffer* find(BufferId id) const;
  // The submit `ticket` uses the buffer.
  void mark_used(BufferId id, std::uint64_t ticket);

  // Frees destroyed buffers that the device is done with.
  void collect(std::uint64_t completed);

 private:
  struct Entry {
    Buffer buffer;
    std::uint64_t last_ticket = 0;
  };
  Memory& memory_;
  Timeline& timeline_;
  std::unordered_map<std::uint64_t, Entry> entries_;
  std::vector<Entry> dying_;
  std::uint64_t next_id_ = 1;
};

}  // namespace kvant
