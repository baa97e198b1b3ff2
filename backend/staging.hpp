// StagingPool: mapped memory of one kind (upload or readback), handed out from a ring. A piece larger than half the
// ring, or one that finds the ring full, gets a buffer of its own for as long. Not thread-safe.
//
// A piece belongs to the next submit. Upload pieces return when that submit completes. Readback pieces return only
// after the host has also waited for that submit, and not before the next readback piece is asked for.
#pragma once

#include "buffer_table.hpp"
#include "ring_allocator.hpp"
#include "ticket_ring.hpp"

namespace kvant {

class StagingPool {
 public:
  StagingPool(Memory& memory, BufferTable& buffers, Timeline& timeline, BufferKind kind, std::uint64_t ring_bytes)
      : memory_(memory), buffers_(buffers), timeline_(timeline), kind_(kind), ring_bytes_(ring_bytes) {}
  StagingPool(const StagingPool&) = delete;
  StagingPool& operator=(const StagingPool&) = delete;

  // `ticket`: of the next submit.
  Result<Staging> stage(std::uint64_t size, std::uint64_t ticket);

  // Pieces that the submit `ticket` will take along.
  bool has_pieces(std::uint64_t ticket) const { return pieces_.size() != 0 && pieces_.at(pieces_.size() - 1).ticket == ticket; }
  // Before the submit `ticket`: makes the host's writes visible (upload).
  Status flush(std::uint64_t ticket);
  // After the host waited for `ticket`: makes the device's writes visible (readback).
  Status waited(std::uint64_t ticket);

  std::size_t dedicated_count() const;

 private:
  struct Piece {
    BufferRange range;
    bool dedicated = false;
  };
  void reclaim();
  bool make_room(std::uint64_t size, std::uint64_t ticket, std::uint64_t& offset);

  Memory& memory_;
  BufferTable& buffers_;
  Timeline& timeline_;
  BufferKind kind_;
  std::uint64_t ring_bytes_;
  BufferId ring_buffer_ = BufferId::none;
  RingAllocator ring_;
  TicketRing<Piece> pieces_;
  std::uint64_t waited_ = 0;
};

}  // namespace kvant
