#include "workbench.hpp"

#include <algorithm>

namespace kvant::conformance {

Workbench::~Workbench() {
  for (const BufferId id : buffers_) executor_.destroy_buffer(id);
}

Result<Buffer> Workbench::make_filled(std::uint64_t size, std::byte value) {
  return make(Bytes(static_cast<std::size_t>(size), value));
}

Result<Buffer> Workbench::make(std::span<const std::byte> content) {
  const std::uint64_t size = (std::max<std::uint64_t>(content.size(), 16) + 15) / 16 * 16;
  Bytes all(static_cast<std::size_t>(size) + 2 * kGuardBytes, kGuardByte);
  std::copy(content.begin(), content.end(), all.begin() + kGuardBytes);
  KVANT_ASSIGN(const BufferId id, executor_.create_buffer(all.size(), BufferKind::device));
  buffers_.push_back(id);
  const std::uint64_t step = executor_.limits().max_staging_bytes / 4 / 256 * 256;
  for (std::uint64_t at = 0; at < all.size(); at += step) {
    const std::uint64_t count = std::min<std::uint64_t>(step, all.size() - at);
    KVANT_ASSIGN(const Staging staging, executor_.stage(count, BufferKind::upload));
    std::memcpy(staging.data, all.data() + at, count);
    CommandList list;
    list.add_copy(Copy{staging.range.buffer, staging.range.offset, id, at, count}, "upload", true);
    KVANT_TRY(run(list));
  }
  return Buffer{id, BufferRange{id, kGuardBytes, size}};
}

Result<Bytes> Workbench::fetch(const Buffer& buffer) {
  Bytes all(static_cast<std::size_t>(buffer.range.size) + 2 * kGuardBytes);
  const std::uint64_t step = executor_.limits().max_staging_bytes / 4 / 256 * 256;
  for (std::uint64_t at = 0; at < all.size(); at += step) {
    const std::uint64_t count = std::min<std::uint64_t>(step, all.size() - at);
    KVANT_ASSIGN(const Staging staging, executor_.stage(count, BufferKind::readback));
    CommandList list;
    list.add_copy(Copy{buffer.id, at, staging.range.buffer, staging.range.offset, count}, "download", true);
    KVANT_TRY(run(list));
    std::memcpy(all.data() + at, staging.data, count);
  }
  return all;
}

Status Workbench::run(const CommandList& list) {
  KVANT_ASSIGN(const Ticket ticket, executor_.submit(list));
  return executor_.wait(ticket);
}

}  // namespace kvant::conformance
