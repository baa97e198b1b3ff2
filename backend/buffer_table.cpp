#include "buffer_table.hpp"

#include <algorithm>

#include "rollback.hpp"

namespace kvant {

BufferTable::~BufferTable() {
  for (const Entry& entry : dying_) memory_.destroy(entry.buffer);
  for (const auto& [id, entry] : entries_) memory_.destroy(entry.buffer);
}

Result<BufferId> BufferTable::create(std::uint64_t size, BufferKind kind) {
  collect(timeline_.completed());
  Result<Buffer> buffer = memory_.create(size, kind);
  if (!buffer.ok() && buffer.status().code() == StatusCode::resource_exhausted && !dying_.empty()) {
    std::uint64_t last = 0;
    for (const Entry& entry : dying_) last = std::max(last, entry.last_ticket);
    KVANT_TRY(timeline_.wait(std::min(last, timeline_.last_submitted())));
    collect(timeline_.completed());
    buffer = memory_.create(size, kind);
  }
  if (!buffer.ok()) return buffer.status();
  Rollback undo([&] { memory_.destroy(buffer.value()); });
  dying_.reserve(entries_.size() + dying_.size() + 1);  // destroy() then allocates nothing
  const std::uint64_t id = next_id_++;
  entries_.emplace(id, Entry{buffer.value(), 0});
  undo.complete();
  return static_cast<BufferId>(id);
}

BufferId BufferTable::import(VkBuffer handle, std::uint64_t size) {
  Buffer buffer;
  buffer.handle = handle;
  buffer.size = size;
  dying_.reserve(entries_.size() + dying_.size() + 1);
  const std::uint64_t id = next_id_++;
  entries_.emplace(id, Entry{buffer, 0});
  return static_cast<BufferId>(id);
}

void BufferTable::destroy(BufferId id) {
  const auto found = entries_.find(static_cast<std::uint64_t>(id));
  if (found == entries_.end()) return;
  const Entry entry = found->second;
  entries_.erase(found);
  if (entry.last_ticket <= timeline_.completed())
    memory_.destroy(entry.buffer);
  else
    dying_.push_back(entry);
}

const Buffer* BufferTable::find(BufferId id) const {
  const auto found = entries_.find(static_cast<std::uint64_t>(id));
  return found == entries_.end() ? nullptr : &found->second.buffer;
}

void BufferTable::mark_used(BufferId id, std::uint64_t ticket) {
  if (const auto found = entries_.find(static_cast<std::uint64_t>(id)); found != entries_.end())
    found->second.last_ticket = ticket;
}

void BufferTable::collect(std::uint64_t completed) {
  std::erase_if(dying_, [&](const Entry& entry) {
    if (entry.last_ticket > completed) return false;
    memory_.destroy(entry.buffer);
    return true;
  });
}

}  // namespace kvant
