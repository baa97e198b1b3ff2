// EventRing: the latest events of a cache, numbered, for a host that publishes them or shows them. A reader that comes
// too late is told how many events it missed. Thread rule: any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

namespace kvant {

// What `a` and `b` of an event mean. A key is the first eight bytes, little-endian, of the page's content key: the same
// in every process, so that a router may follow which pages are where. Values not named are 0.
enum class EventKind : std::uint32_t {
  page_published,      // a: key; b: pages before it in its prefix
  page_evicted,        // a: key; b: EvictionCause
  prefix_hit,          // a: tokens asked for; b: tokens found, at least one page
  prefix_miss,         // a: tokens asked for
  tier_store,          // a: key; b: place of the tier in CacheStats::tiers
  tier_hit,            // a: key; b: place of the tier
  tier_miss,           // a: key; b: place of the tier
  convert,             // a: layer, kAllLayers for all of them; b: the new formats' ids, K's << 32 | V's
  sequence_created,    // a: tokens given; b: of these, tokens that were there already
  sequence_destroyed,  // a: tokens; b: pages that became free
  limit_changed,       // a: bytes before; b: bytes now (0: no limit)
  policy_changed,      // a: PolicyKind before; b: PolicyKind now
  save,                // a: bytes written; b: tokens; sequence 0: the whole cache or a prefix
  load,                // a: bytes read; b: tokens; sequence 0: the whole cache or a prefix
  pruned,              // a: tokens before; b: tokens now
  cooled,              // a: pool_bytes before; b: now
};
inline constexpr std::uint32_t kEventKinds = 16;
inline constexpr std::uint64_t kAllLayers = UINT64_MAX;
std::string_view event_name(EventKind kind);  // "page_published"

struct Event {
  std::uint64_t number = 0;   // 1, 2, 3 ... without gaps; never used again
  std::uint64_t time_ms = 0;  // of the caller's monotonic clock
  EventKind kind = EventKind::page_published;
  std::uint64_t a = 0, b = 0;
  std::uint64_t sequence = 0;  // 0: none
  bool operator==(const Event&) const = default;
};

struct EventBatch {
  std::vector<Event> events;  // in order of their numbers
  std::uint64_t lost = 0;     // events after `since` and before these that the ring no longer holds
  std::uint64_t next = 0;     // `since` of the next poll
  std::uint64_t newest = 0;   // number of the latest event; below `since`: the reader's number is of another ring
};

class EventRing {
 public:
  explicit EventRing(std::size_t capacity);  // events held; 0: none, each is lost at once and numbers go on

  std::uint64_t add(EventKind kind, std::uint64_t time_ms, std::uint64_t a, std::uint64_t b, std::uint64_t sequence);
  // The oldest events of numbers above `since`, at most `max`. The same poll again gives the same events for as long as
  // they are held.
  EventBatch poll(std::uint64_t since, std::size_t max) const;

 private:
  const std::size_t capacity_;
  mutable std::mutex mutex_;
  std::vector<Event> events_;  // event n at (n - 1) % capacity
  std::uint64_t newest_ = 0;
};

}  // namespace kvant
