// What every eviction policy keeps of an entry, and the intrusive lists in which entries hang: moving one costs no
// allocation.
#pragma once

#include <cassert>
#include <cstdint>

#include "eviction_policy.hpp"

namespace kvant {

struct PolicyEntry;

struct PolicyLink {
  PolicyEntry* previous = nullptr;
  PolicyEntry* next = nullptr;
};

struct PolicyEntry {
  EntryId id{};
  EntryFacts facts;
  std::uint64_t last_use_ms = 0;
  std::uint64_t pins = 0;
  std::uint32_t rank = 0;   // of lower ranks, all leave before any of a higher one
  std::uint8_t queue = 0;   // of adaptive: in which of its two
  std::uint64_t stamp = 0;  // of adaptive: its clock at the last use
  bool parked = false;      // out of its queue: it was to leave, and was pinned
  bool timed = false;       // hangs in the list `timer_slot` of the expiry wheel
  std::uint32_t timer_slot = 0;
  PolicyLink order;
  PolicyLink timer;

  bool has_ttl() const { return facts.ttl_ms != 0; }
  // Never, if the sum does not fit: time ends before.
  std::uint64_t deadline_ms() const {
    return facts.ttl_ms > UINT64_MAX - last_use_ms ? UINT64_MAX : last_use_ms + facts.ttl_ms;
  }
  bool expired(std::uint64_t now_ms) const { return has_ttl() && deadline_ms() <= now_ms; }
};

// Does not own its entries. An entry is in at most one list a link.
template <PolicyLink PolicyEntry::*kLink>
class PolicyList {
 public:
  bool empty() const { return front_ == nullptr; }
  std::uint64_t size() const { return size_; }
  PolicyEntry* front() const { return front_; }

  void push_back(PolicyEntry& entry) {
    (entry.*kLink) = {back_, nullptr};
    (back_ != nullptr ? (back_->*kLink).next : front_) = &entry;
    back_ = &entry;
    ++size_;
  }
  void push_front(PolicyEntry& entry) {
    (entry.*kLink) = {nullptr, front_};
    (front_ != nullptr ? (front_->*kLink).previous : back_) = &entry;
    front_ = &entry;
    ++size_;
  }
  void remove(PolicyEntry& entry) {
    PolicyLink& link = entry.*kLink;
    (link.previous != nullptr ? (link.previous->*kLink).next : front_) = link.next;
    (link.next != nullptr ? (link.next->*kLink).previous : back_) = link.previous;
    link = {};
    assert(size_ > 0);
    --size_;
  }

 private:
  PolicyEntry* front_ = nullptr;
  PolicyEntry* back_ = nullptr;
  std::uint64_t size_ = 0;
};

using OrderList = PolicyList<&PolicyEntry::order>;
using TimerList = PolicyList<&PolicyEntry::timer>;

}  // namespace kvant
