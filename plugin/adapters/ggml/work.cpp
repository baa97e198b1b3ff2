#include "work.hpp"

#include <algorithm>
#include <cstring>

#include "operations.hpp"

namespace kvant::ggml {

namespace {

// What may gather before it is submitted.
constexpr std::uint64_t kMostStaged = 8ull << 20;
constexpr std::size_t kMostCommands = 1024;

}  // namespace

Work::~Work() {
  for (const Buffer& buffer : scratch_) executor_.destroy_buffer(buffer.id);
}

Status Work::flush() {
  if (!broken_.ok()) return broken_;
  if (list_.commands.empty()) return {};
  auto ticket = executor_.submit(list_);
  list_.clear();
  staged_ = 0;
  lone_append_end_ = 0;
  if (!ticket.ok()) {
    broken_ = {ticket.status().code(), "what was submitted before failed: " + ticket.status().message()};
    return ticket.status();
  }
  last_ = ticket.value();
  waited_ = false;
  return {};
}

Status Work::finish() {
  KVANT_TRY(flush());
  if (waited_) return {};
  KVANT_TRY(executor_.wait(last_));
  waited_ = true;
  return {};
}

Result<Staging> Work::stage(std::uint64_t bytes, BufferKind kind) {
  if (!broken_.ok()) return broken_;
  if (kind == BufferKind::upload && (staged_ + bytes > kMostStaged || list_.commands.size() > kMostCommands)) KVANT_TRY(flush());
  staged_ += bytes;
  auto staging = executor_.stage(bytes, kind);
  if (staging.ok() || staging.status().code() != StatusCode::resource_exhausted) return staging;
  KVANT_TRY(finish());  // what was staged before is free then
  return executor_.stage(bytes, kind);
}

Result<BufferRange> Work::upload(std::span<const std::uint32_t> words) {
  KVANT_ASSIGN(const Staging staging, stage(words.size_bytes(), BufferKind::upload));
  std::memcpy(staging.data, words.data(), words.size_bytes());
  return staging.range;
}

Result<BufferRange> Work::scratch(Scratch which, std::uint64_t bytes) {
  Buffer& buffer = scratch_[static_cast<std::size_t>(which)];
  if (buffer.size < bytes) {
    const std::uint64_t size = std::max(bytes, std::min((bytes + (bytes >> 2) + 255) / 256 * 256, executor_.limits().max_slab_bytes));
    KVANT_ASSIGN(const BufferId id, executor_.create_buffer(size, BufferKind::device));
    // Commands that name the old one may still gather.
    if (buffer.id != BufferId::none) {
      if (Status status = flush(); !status.ok()) {
        executor_.destroy_buffer(id);
        return status;
      }
      executor_.destroy_buffer(buffer.id);
    }
    buffer = {id, size};
  }
  return BufferRange{buffer.id, 0, buffer.size};
}

Window Work::window(BufferId buffer, std::uint64_t offset, std::uint64_t bytes) const {
  const std::uint64_t begin = offset - offset % executor_.limits().binding_alignment;
  return {{buffer, begin, (offset + bytes - begin + 3) / 4 * 4}, static_cast<std::uint32_t>(offset - begin)};
}

Window Work::window(const ggml_tensor* tensor) const { return window(buffer_id(tensor), offset_of(tensor), ggml_nbytes(tensor)); }

}  // namespace kvant::ggml
