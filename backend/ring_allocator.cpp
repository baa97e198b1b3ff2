#include "ring_allocator.hpp"

namespace kvant {

std::optional<std::uint64_t> RingAllocator::allocate(std::uint64_t size, std::uint64_t ticket) {
  if (size == 0 || size > capacity_) return std::nullopt;
  size = (size + alignment_ - 1) / alignment_ * alignment_;
  std::uint64_t offset = head_;
  if (pieces_.size() == 0) {
    offset = tail_ = 0;
  } else if (head_ > tail_) {
    if (size > capacity_ - head_) offset = 0;  // skip the rest; it comes free with this piece
    if (offset == 0 && size > tail_) return std::nullopt;
  } else if (size > tail_ - head_) {
    return std::nullopt;
  }
  if (offset + size > capacity_) return std::nullopt;
  head_ = offset + size;
  pieces_.give(head_, ticket);
  return offset;
}

void RingAllocator::reclaim(std::uint64_t completed) {
  while (const auto end = pieces_.take(completed)) tail_ = *end;
}

}  // namespace kvant
