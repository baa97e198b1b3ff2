// ExpiryWheel: finds the entries whose deadline has passed, in constant amortized time whatever the deadlines are.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "policy_entry.hpp"

namespace kvant {

// A hierarchical timing wheel: level L holds the deadlines that differ from the wheel's time first in their L-th group
// of six bits, one slot a value of that group. An entry moves down at most once a level before it is due.
class ExpiryWheel {
 public:
  // `entry.timed` must be false. A deadline that has passed is due at once.
  void schedule(PolicyEntry& entry, std::uint64_t deadline_ms);
  void cancel(PolicyEntry& entry);
  // Time does not go back: an earlier `now_ms` changes nothing.
  void advance(std::uint64_t now_ms);
  // Takes out one entry whose scheduled deadline has passed, or null.
  PolicyEntry* pop_due();

 private:
  static constexpr std::uint32_t kBits = 6, kSlots = 1u << kBits, kLevels = (64 + kBits - 1) / kBits;
  static constexpr std::uint32_t kDue = kLevels * kSlots;  // the list after those of the levels

  std::uint64_t now_ms_ = 0;
  std::vector<TimerList> slots_;                      // made at the first use: most policies have no TTL
  std::array<std::uint64_t, kLevels> occupied_ = {};  // a bit a slot; may stay set after a cancel
};

}  // namespace kvant
