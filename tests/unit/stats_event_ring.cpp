// The event ring: numbers without gaps, what is lost is counted, many threads.
#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <thread>

#include "event_ring.hpp"
#include "host_random.hpp"

namespace kvant {
namespace {

TEST_CASE("event ring: events come back as they were added") {
  EventRing ring(4);
  CHECK(ring.poll(0, 10).events.empty());
  CHECK(ring.add(EventKind::prefix_hit, 100, 64, 32, 7) == 1);
  CHECK(ring.add(EventKind::limit_changed, 101, 5, 6, 0) == 2);
  const EventBatch batch = ring.poll(0, 10);
  REQUIRE(batch.events.size() == 2);
  CHECK(batch.events[0] == Event{1, 100, EventKind::prefix_hit, 64, 32, 7});
  CHECK(batch.events[1] == Event{2, 101, EventKind::limit_changed, 5, 6, 0});
  CHECK(batch.lost == 0);
  CHECK(batch.next == 2);
  CHECK(ring.poll(0, 10).events == batch.events);  // again
  CHECK(ring.poll(batch.next, 10).events.empty());
}

TEST_CASE("event ring: who comes late is told how many are gone") {
  EventRing ring(4);
  for (std::uint64_t i = 1; i <= 10; ++i) CHECK(ring.add(EventKind::save, i, i, 0, 0) == i);
  EventBatch batch = ring.poll(2, 100);
  CHECK(batch.lost == 4);  // 3 to 6
  REQUIRE(batch.events.size() == 4);
  CHECK(batch.events.front().number == 7);
  CHECK(batch.events.back().a == 10);
  batch = ring.poll(2, 0);
  CHECK(batch.events.empty());
  CHECK(batch.lost == 4);
  CHECK(batch.next == 6);
  CHECK(ring.poll(batch.next, 1).events.front().number == 7);
  batch = ring.poll(99, 5);  // a number of another ring
  CHECK(batch.events.empty());
  CHECK(batch.lost == 0);
  CHECK(batch.newest == 10);
}

TEST_CASE("event ring: a ring of nothing loses everything and says so") {
  EventRing ring(0);
  CHECK(ring.add(EventKind::load, 0, 0, 0, 0) == 1);
  CHECK(ring.add(EventKind::load, 0, 0, 0, 0) == 2);
  const EventBatch batch = ring.poll(0, 10);
  CHECK(batch.events.empty());
  CHECK(batch.lost == 2);
  CHECK(batch.next == 2);
}

TEST_CASE("event ring: every event is seen once or counted as lost") {
  test::Random random(8);
  for (const std::size_t capacity : {1u, 2u, 7u, 64u}) {
    EventRing ring(capacity);
    std::uint64_t added = 0, seen = 0, lost = 0, since = 0;
    for (int step = 0; step < 2000; ++step) {
      for (std::uint32_t n = random.below(6); n > 0; --n) ring.add(EventKind::convert, 0, ++added, 0, 0);
      const EventBatch batch = ring.poll(since, random.below(8));
      lost += batch.lost;
      std::uint64_t expected = since + batch.lost;
      for (const Event& event : batch.events) {
        REQUIRE(event.number == ++expected);
        REQUIRE(event.a == event.number);
      }
      seen += batch.events.size();
      REQUIRE(batch.next == expected);
      since = batch.next;
      REQUIRE(seen + lost == since);
    }
    CHECK(seen > 0);
  }
}

TEST_CASE("event ring: threads add without gaps while others poll") {
  constexpr std::uint64_t kThreads = 4, kEach = 2000;
  EventRing ring(kThreads * kEach);
  std::atomic<bool> done = false;
  std::atomic<std::uint64_t> wrong = 0;
  std::thread reader([&] {
    for (std::uint64_t since = 0; !done || since < kThreads * kEach;) {
      const EventBatch batch = ring.poll(since, 100);
      for (const Event& event : batch.events) wrong += event.number != ++since;
      wrong += batch.next != since || batch.lost != 0;
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> writers;
  for (std::uint64_t thread = 0; thread < kThreads; ++thread)
    writers.emplace_back([&ring, thread] {
      for (std::uint64_t i = 0; i < kEach; ++i) ring.add(EventKind::tier_store, i, thread, i, 0);
    });
  for (std::thread& writer : writers) writer.join();
  done = true;
  reader.join();
  CHECK(wrong == 0);
  // Each thread's events keep their order.
  std::uint64_t next[kThreads] = {};
  for (const Event& event : ring.poll(0, kThreads * kEach).events) REQUIRE(event.b == next[event.a]++);
  for (const std::uint64_t count : next) CHECK(count == kEach);
}

TEST_CASE("event ring: every kind has a name of its own") {
  std::set<std::string_view> names;
  for (std::uint32_t i = 0; i < kEventKinds; ++i) names.insert(event_name(static_cast<EventKind>(i)));
  CHECK(names.size() == kEventKinds);
  CHECK_FALSE(names.contains("unknown"));
  CHECK(event_name(EventKind::load) == "load");
  CHECK(event_name(static_cast<EventKind>(kEventKinds)) == "unknown");
}

}  // namespace
}  // namespace kvant
