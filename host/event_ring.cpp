// The ring of events.
#include "event_ring.hpp"

#include <algorithm>
#include <array>

namespace kvant {

std::string_view event_name(EventKind kind) {
  static constexpr std::array<std::string_view, kEventKinds> kNames = {
      "page_published", "page_evicted", "prefix_hit",       "prefix_miss",        "tier_store",    "tier_hit",
      "tier_miss",      "convert",      "sequence_created", "sequence_destroyed", "limit_changed", "policy_changed",
      "save",           "load",         "pruned",         "cooled"};
  const auto index = static_cast<std::size_t>(kind);
  return index < kNames.size() ? kNames[index] : "unknown";
}

// Room for all of them at once: adding an event then never fails, so that it may stand behind what cannot be undone.
EventRing::EventRing(std::size_t capacity) : capacity_(capacity) { events_.reserve(capacity); }

std::uint64_t EventRing::add(EventKind kind, std::uint64_t time_ms, std::uint64_t a, std::uint64_t b,
                             std::uint64_t sequence) {
  const std::scoped_lock lock(mutex_);
  const Event event{++newest_, time_ms, kind, a, b, sequence};
  if (events_.size() < capacity_)
    events_.push_back(event);
  else if (capacity_ > 0)
    events_[(event.number - 1) % capacity_] = event;
  return event.number;
}

EventBatch EventRing::poll(std::uint64_t since, std::size_t max) const {
  const std::scoped_lock lock(mutex_);
  EventBatch batch;
  batch.newest = newest_;
  batch.next = since;
  if (since >= newest_) return batch;
  const std::uint64_t held_after = newest_ - events_.size();  // the events held have numbers above this
  if (since < held_after) {
    batch.lost = held_after - since;
    batch.next = held_after;
  }
  const std::uint64_t count = std::min<std::uint64_t>(newest_ - batch.next, max);
  batch.events.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) batch.events.push_back(events_[batch.next++ % capacity_]);
  return batch;
}

}  // namespace kvant
