#include "staging.hpp"

#include <algorithm>

namespace kvant {

constexpr std::uint64_t kStagingAlignment = 256;

void StagingPool::reclaim() {
  std::uint64_t done = timeline_.completed();
  if (kind_ == BufferKind::readback) done = std::min(done, waited_);
  while (!pieces_.empty() && pieces_.front().ticket <= done) {
    if (pieces_.front().dedicated) buffers_.destroy(pieces_.front().range.buffer);
    pieces_.pop_front();
  }
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
  pieces_.push_back({staging.range, ticket, dedicated});
  return staging;
}

Status StagingPool::flush(std::uint64_t ticket) {
  for (auto piece = pieces_.rbegin(); piece != pieces_.rend() && piece->ticket == ticket; ++piece)
    KVANT_TRY(memory_.flush(*buffers_.find(piece->range.buffer), piece->range.offset, piece->range.size));
  return {};
}

Status StagingPool::waited(std::uint64_t ticket) {
  for (const Piece& piece : pieces_) {
    if (piece.ticket > ticket) break;
    if (piece.ticket > waited_)
      KVANT_TRY(memory_.invalidate(*buffers_.find(piece.range.buffer), piece.range.offset, piece.range.size));
  }
  waited_ = std::max(waited_, ticket);
  return {};
}

std::size_t StagingPool::dedicated_count() const {
  return static_cast<std::size_t>(
      std::count_if(pieces_.begin(), pieces_.end(), [](const Piece& p) { return p.dedicated; }));
}

}  // namespace kvant
