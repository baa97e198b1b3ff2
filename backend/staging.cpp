#include "staging.hpp"

#include <algorithm>

namespace kvant {

constexpr std::uint64_t kStagingAlignment = 256;

void StagingPool::reclaim() {
  std::uint64_t done = timeline_.completed();
  if (kind_ == BufferKind::readback) done = std::min(done, waited_);
  while (const std::optional<Piece> piece = pieces_.take(done))
    if (piece->dedicated) buffers_.destroy(piece->range.buffer);
  ring_.reclaim(done);
}

// Waits for older uploads rather than allocate; never for work that is not submitted yet or results that nobody has
// read.
bool StagingPool::make_room(std::uint64_t size, std::uint64_t ticket, std::uint64_t& offset) {
  while (true) {
    if (const auto found = ring_.allocate(size, ticket)) {
      offset = *found;
      return true;
    }
    const auto oldest = ring_.oldest_ticket();
    if (kind_ == BufferKind::readback || !oldest || *oldest > timeline_.last_submitted()) return false;
    if (!timeline_.wait(*oldest).ok()) return false;
    reclaim();
  }
}

Result<Staging> StagingPool::stage(std::uint64_t size, std::uint64_t ticket) {
  reclaim();
  Staging staging;
  staging.range.size = size;
  bool dedicated = size > ring_bytes_ / 2;
  if (!dedicated && ring_buffer_ == BufferId::none) {
    KVANT_ASSIGN(ring_buffer_, buffers_.create(ring_bytes_, kind_));
    ring_ = RingAllocator(ring_bytes_, kStagingAlignment);
  }
  dedicated = dedicated || !make_room(size, ticket, staging.range.offset);
  if (dedicated) {
    KVANT_ASSIGN(staging.range.buffer, buffers_.create(size, kind_));
  } else {
    staging.range.buffer = ring_buffer_;
  }
  staging.data = buffers_.find(staging.range.buffer)->mapped + staging.range.offset;
  pieces_.give({staging.range, dedicated}, ticket);
  return staging;
}

Status StagingPool::flush(std::uint64_t ticket) {
  for (std::size_t i = pieces_.size(); i-- != 0 && pieces_.at(i).ticket == ticket;) {
    const BufferRange& range = pieces_.at(i).object.range;
    KVANT_TRY(memory_.flush(*buffers_.find(range.buffer), range.offset, range.size));
  }
  return {};
}

Status StagingPool::waited(std::uint64_t ticket) {
  for (std::size_t i = 0; i < pieces_.size() && pieces_.at(i).ticket <= ticket; ++i) {
    const BufferRange& range = pieces_.at(i).object.range;
    if (pieces_.at(i).ticket > waited_) KVANT_TRY(memory_.invalidate(*buffers_.find(range.buffer), range.offset, range.size));
  }
  waited_ = std::max(waited_, ticket);
  return {};
}

std::size_t StagingPool::dedicated_count() const {
  std::size_t count = 0;
  for (std::size_t i = 0; i < pieces_.size(); ++i) count += pieces_.at(i).object.dedicated ? 1 : 0;
  return count;
}

}  // namespace kvant
