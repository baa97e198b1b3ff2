// RingAllocator: offsets in a circular buffer whose pieces come free in order of their tickets. Pure bookkeeping.
#pragma once

#include <cstdint>
#include <optional>

#include "ticket_ring.hpp"

namespace kvant {

class RingAllocator {
 public:
  RingAllocator() = default;
  RingAllocator(std::uint64_t capacity, std::uint64_t alignment) : capacity_(capacity), alignment_(alignment) {}

  // Offset of `size` contiguous bytes, to be free again when `ticket` completes; none when the ring is full.
  std::optional<std::uint64_t> allocate(std::uint64_t size, std::uint64_t ticket);
  // Takes back the pieces whose ticket has completed.
  void reclaim(std::uint64_t completed);
  // The ticket to wait for when the ring is full.
  std::optional<std::uint64_t> oldest_ticket() const { return pieces_.oldest_ticket(); }

  std::uint64_t capacity() const { return capacity_; }

 private:
  std::uint64_t capacity_ = 0, alignment_ = 1;
  std::uint64_t head_ = 0, tail_ = 0;  // next byte to hand out; first byte still in use
  TicketRing<std::uint64_t> pieces_;   // end offsets, oldest first
};

}  // namespace kvant
