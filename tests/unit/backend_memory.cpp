// Pure parts of memory and staging: the choice of memory type, the ring allocator, the ticket ring.
#include <deque>
#include <random>

#include "backend_snapshots.hpp"
#include "memory.hpp"
#include "ring_allocator.hpp"

using namespace kvant;
using namespace kvant::test;

TEST_SUITE("backend memory") {
  TEST_CASE("memory types by kind") {
    const auto h200 = load_snapshot("nvidia_h200").memory_types;
    CHECK(choose_memory_type(h200, ~0U, BufferKind::device) == 1);
    CHECK(choose_memory_type(h200, ~0U, BufferKind::upload) == 2);
    CHECK(choose_memory_type(h200, ~0U, BufferKind::readback) == 3);
    const auto rdna3 = load_snapshot("rdna3_radv").memory_types;
    CHECK(choose_memory_type(rdna3, ~0U, BufferKind::device) == 0);
    CHECK(choose_memory_type(rdna3, ~0U, BufferKind::upload) == 1);
    CHECK(choose_memory_type(rdna3, ~0U, BufferKind::readback) == 3);
    // One kind of memory serves for all on a CPU; a phone reads back from its cached type.
    for (const BufferKind kind : {BufferKind::device, BufferKind::upload, BufferKind::readback})
      CHECK(choose_memory_type(load_snapshot("lavapipe").memory_types, ~0U, kind) == 0);
    CHECK(choose_memory_type(load_snapshot("mali_g52").memory_types, ~0U, BufferKind::readback) == 2);
    // Shared memory is coherent and cached, or there is none.
    CHECK(choose_memory_type(h200, ~0U, BufferKind::shared) == 3);
    CHECK(choose_memory_type(rdna3, ~0U, BufferKind::shared) == 3);
    CHECK(choose_memory_type(load_snapshot("lavapipe").memory_types, ~0U, BufferKind::shared) == 0);
    CHECK_FALSE(choose_memory_type(rdna3, 0b0011, BufferKind::shared).has_value());
    // Only what the buffer allows, and nothing where nothing fits.
    CHECK(choose_memory_type(rdna3, 0b0100, BufferKind::device) == 2);
    CHECK_FALSE(choose_memory_type(rdna3, 0b0001, BufferKind::upload).has_value());
    CHECK_FALSE(choose_memory_type(rdna3, 0b110000, BufferKind::device).has_value());
    CHECK_FALSE(choose_memory_type({}, ~0U, BufferKind::device).has_value());
    // Unified memory is the device's own, whether the host sees it or not.
    CHECK(choose_memory_type(h200, ~0U, BufferKind::unified) == choose_memory_type(h200, ~0U, BufferKind::device));
    CHECK(choose_memory_type(rdna3, ~0U, BufferKind::unified) == choose_memory_type(rdna3, ~0U, BufferKind::device));
  }

  TEST_CASE("a ticket ring gives objects back in order and only when done") {
    TicketRing<int> ring;
    CHECK_FALSE(ring.take(100).has_value());
    for (int i = 0; i < 20; ++i) ring.give(i, static_cast<std::uint64_t>(i));
    CHECK_FALSE(TicketRing<int>().oldest_ticket().has_value());
    CHECK(ring.oldest_ticket() == 0);
    for (int i = 0; i <= 9; ++i) CHECK(ring.take(9) == i);
    CHECK_FALSE(ring.take(9).has_value());
    for (int i = 20; i < 60; ++i) ring.give(i, static_cast<std::uint64_t>(i));
    for (int i = 10; i < 60; ++i) CHECK(ring.take(1000) == i);
    CHECK(ring.size() == 0);
  }

  TEST_CASE("a ring refuses what does not fit") {
    RingAllocator ring(1024, 256);
    CHECK_FALSE(ring.allocate(0, 1).has_value());
    CHECK_FALSE(ring.allocate(1025, 1).has_value());
    CHECK(ring.allocate(1024, 1) == 0);
    CHECK_FALSE(ring.allocate(1, 2).has_value());
    CHECK(ring.oldest_ticket() == 1);
    ring.reclaim(0);
    CHECK_FALSE(ring.allocate(1, 2).has_value());
    ring.reclaim(1);
    CHECK(ring.allocate(1, 2) == 0);
    CHECK(ring.allocate(700, 3) == 256);
    CHECK_FALSE(ring.allocate(1, 4).has_value());
    ring.reclaim(2);
    CHECK(ring.allocate(256, 4) == 0);  // wraps
    CHECK_FALSE(ring.allocate(1, 5).has_value());
  }

  TEST_CASE("pieces of a ring never overlap, over many wraps") {
    struct Piece {
      std::uint64_t begin, end, ticket;
    };
    std::mt19937 random(7);
    RingAllocator ring(4096, 16);
    std::deque<Piece> live;
    std::uint64_t ticket = 0, done = 0;
    int refused = 0, wrapped = 0;
    std::uint64_t last = 0;
    for (int step = 0; step < 20000; ++step) {
      const std::uint64_t size = 1 + random() % 900;
      if (const auto offset = ring.allocate(size, ++ticket)) {
        REQUIRE(*offset % 16 == 0);
        REQUIRE(*offset + size <= 4096);
        for (const Piece& piece : live) REQUIRE((*offset + size <= piece.begin || piece.end <= *offset));
        live.push_back({*offset, *offset + size, ticket});
        wrapped += *offset < last ? 1 : 0;
        last = *offset;
      } else {
        ++refused;
        REQUIRE_FALSE(live.empty());
      }
      if (random() % 2 == 0 && !live.empty()) {
        done = live[random() % live.size()].ticket;
        while (!live.empty() && live.front().ticket <= done) live.pop_front();
        ring.reclaim(done);
      }
    }
    CHECK(wrapped > 1000);
    CHECK(refused > 100);
    ring.reclaim(ticket);
    CHECK(ring.allocate(4096, ticket + 1) == 0);
  }
}
