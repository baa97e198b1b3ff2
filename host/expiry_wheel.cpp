// The slots of the expiry wheel, and what moves between them as time goes on.
#include "expiry_wheel.hpp"

#include <bit>

namespace kvant {

void ExpiryWheel::schedule(PolicyEntry& entry, std::uint64_t deadline_ms) {
  assert(!entry.timed);
  if (slots_.empty()) slots_.resize(kDue + 1);
  std::uint32_t slot = kDue;
  if (deadline_ms > now_ms_) {
    const auto highest = static_cast<std::uint32_t>(63 - std::countl_zero(deadline_ms ^ now_ms_));
    const std::uint32_t level = highest / kBits;
    const auto digit = static_cast<std::uint32_t>(deadline_ms >> (level * kBits)) % kSlots;
    slot = level * kSlots + digit;
    occupied_[level] |= std::uint64_t{1} << digit;
  }
  entry.timed = true;
  entry.timer_slot = slot;
  slots_[slot].push_back(entry);
}

void ExpiryWheel::cancel(PolicyEntry& entry) {
  if (!entry.timed) return;
  slots_[entry.timer_slot].remove(entry);
  entry.timed = false;
}

void ExpiryWheel::advance(std::uint64_t now_ms) {
  if (now_ms <= now_ms_) return;
  const std::uint64_t before = now_ms_;
  now_ms_ = now_ms;
  if (slots_.empty()) return;
  TimerList passed;
  for (std::uint32_t level = 0; level < kLevels; ++level) {
    const std::uint64_t old_digits = before >> (level * kBits), new_digits = now_ms >> (level * kBits);
    if (old_digits == new_digits) break;
    // Within one turn of this level, the slots up to the new digit are over; after a whole turn, all of them.
    const bool same_turn = old_digits / kSlots == new_digits / kSlots;
    const std::uint64_t last = new_digits % kSlots;
    const std::uint64_t over = !same_turn || last == kSlots - 1 ? ~std::uint64_t{0} : (std::uint64_t{2} << last) - 1;
    for (std::uint64_t left = occupied_[level] & over; left != 0; left &= left - 1) {
      TimerList& slot = slots_[level * kSlots + static_cast<std::uint32_t>(std::countr_zero(left))];
      while (PolicyEntry* entry = slot.front()) {
        slot.remove(*entry);
        passed.push_back(*entry);
      }
    }
    occupied_[level] &= ~over;
  }
  while (PolicyEntry* entry = passed.front()) {
    passed.remove(*entry);
    entry->timed = false;
    schedule(*entry, entry->deadline_ms());
  }
}

PolicyEntry* ExpiryWheel::pop_due() {
  if (slots_.empty()) return nullptr;
  PolicyEntry* entry = slots_[kDue].front();
  if (entry != nullptr) cancel(*entry);
  return entry;
}

}  // namespace kvant
