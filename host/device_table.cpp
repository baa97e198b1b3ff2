#include "device_table.hpp"
#include "staging_room.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace kvant {

Status ScratchBuffer::ensure(std::uint64_t size, std::vector<BufferId>* retired) {
  if (size <= size_) return {};
  // Half as much again, so that a slowly growing batch does not reallocate every step; but never beyond one buffer's
  // limit.
  const std::uint64_t most = std::max(size, executor_.limits().max_binding_bytes & ~std::uint64_t{255});
  const std::uint64_t wanted = std::min((std::max(size, size_ + size_ / 2) + 4095) & ~std::uint64_t{4095}, most);
  KVANT_ASSIGN(const BufferId fresh, executor_.create_buffer(wanted, BufferKind::device));
  if (retired != nullptr && buffer_ != BufferId::none) {
    retired->push_back(buffer_);
  } else {
    executor_.destroy_buffer(buffer_);
  }
  buffer_ = fresh;
  size_ = wanted;
  return {};
}

void ScratchBuffer::release() {
  executor_.destroy_buffer(buffer_);
  buffer_ = BufferId::none;
  size_ = 0;
}

void MetaTable::clear() {
  words_.clear();
  uploaded_ = 0;
}

Status MetaTable::upload(CommandList& list, std::vector<BufferId>* retired) {
  const std::uint64_t bytes = words_.size() * sizeof(std::uint32_t);
  if (bytes > executor_.limits().max_binding_bytes)
    return {StatusCode::resource_exhausted, "the step's tables and masks take " + std::to_string(bytes) +
                                                " bytes, the device binds at most " +
                                                std::to_string(executor_.limits().max_binding_bytes)};
  // Half the ring: other pieces of the same list need room too.
  const std::size_t most = static_cast<std::size_t>(most_staged(executor_.limits(), sizeof(std::uint32_t)));
  const bool recording = retired != nullptr;
  if (recording && words_.size() - (bytes > buffer_.size() ? 0 : uploaded_) > most)
    return {StatusCode::resource_exhausted,
            "the step's tables and masks of " + std::to_string(bytes) + " bytes are more than the " +
                std::to_string(most * sizeof(std::uint32_t)) +
                " that one recorded run can upload; run the layer without recording"};
  if (bytes > buffer_.size()) {
    KVANT_TRY(buffer_.ensure(bytes, retired));
    uploaded_ = 0;
  }
  while (uploaded_ < words_.size()) {
    const std::size_t count = std::min(most, words_.size() - uploaded_);
    KVANT_ASSIGN(const Staging staging, executor_.stage(count * sizeof(std::uint32_t), BufferKind::upload));
    std::memcpy(staging.data, words_.data() + uploaded_, count * sizeof(std::uint32_t));
    list.add_copy({staging.range.buffer, staging.range.offset, buffer_.buffer(), uploaded_ * sizeof(std::uint32_t),
                   count * sizeof(std::uint32_t)},
                  "meta", false);
    uploaded_ += count;
    if (uploaded_ < words_.size()) {
      const Result<Ticket> ticket = executor_.submit(list);
      list.clear();
      if (!ticket.ok()) return ticket.status();
    }
  }
  return {};
}

}  // namespace kvant
