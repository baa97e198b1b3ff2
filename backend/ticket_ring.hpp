// TicketRing: objects that the device borrows until a ticket completes and that then serve again, in order of use.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace kvant {

// A first-in first-out queue on a circular array: once grown to its working size it allocates nothing.
template <typename T>
class TicketRing {
 public:
  struct Slot {
    T object;
    std::uint64_t ticket;
  };

  // Tickets must not fall from one give to the next.
  void give(T object, std::uint64_t ticket) {
    if (count_ == slots_.size()) grow();
    slots_[(head_ + count_) % slots_.size()] = {object, ticket};
    ++count_;
  }
  // The oldest object, if its ticket has completed.
  std::optional<T> take(std::uint64_t completed) {
    if (count_ == 0 || slots_[head_].ticket > completed) return std::nullopt;
    T object = slots_[head_].object;
    head_ = (head_ + 1) % slots_.size();
    --count_;
    return object;
  }
  std::optional<std::uint64_t> oldest_ticket() const {
    return count_ == 0 ? std::nullopt : std::optional(slots_[head_].ticket);
  }
  std::size_t size() const { return count_; }
  const Slot& at(std::size_t index) const { return slots_[(head_ + index) % slots_.size()]; }  // 0: the oldest

 private:
  void grow() {
    std::vector<Slot> larger(slots_.empty() ? 8 : slots_.size() * 2);
    for (std::size_t i = 0; i < count_; ++i) larger[i] = slots_[(head_ + i) % slots_.size()];
    slots_ = std::move(larger);
    head_ = 0;
  }
  std::vector<Slot> slots_;
  std::size_t head_ = 0, count_ = 0;
};

}  // namespace kvant
