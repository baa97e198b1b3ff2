// What every tier promises, tried on each of them alike.
#include <doctest/doctest.h>

#include <sys/mman.h>

#include <functional>
#include <thread>

#include "host_random.hpp"
#include "tier_entry.hpp"
#include "tier_fixtures.hpp"
#include "tier_servers.hpp"

namespace kvant {
namespace {

using test::contains_one;
using test::get_one;
using test::number_bytes;
using test::number_key;
using test::number_keys;

// Runs `body` on a fresh tier of each kind.
void on_each_tier(const std::function<void(Tier&)>& body) {
  {
    INFO("memory");
    body(*make_memory_tier(64u << 20));
  }
  {
    INFO("disk");
    const test::TierFolder folder;
    body(*test::open_disk(folder, 64u << 20));
  }
  {
    INFO("custom");
    test::EngineStore store;
    auto made = make_custom_tier(store.functions());
    REQUIRE(made.ok());
    body(*made.value());
  }
  if (test::have_memcached()) {
    INFO("remote");
    const test::Servers servers = test::start_servers(3);
    body(*test::open_remote(servers));
  }
}

TEST_CASE("tier: what was put comes back, and nothing else") {
  on_each_tier([](Tier& tier) {
    for (const std::size_t size : {1u, 2u, 79u, 80u, 81u, 4096u, 100'000u}) {
      CAPTURE(size);
      CHECK(get_one(tier, number_key(size)).empty());
      CHECK_FALSE(contains_one(tier, number_key(size)));
      CHECK(tier.put(number_key(size), number_bytes(size, size)));
      CHECK(contains_one(tier, number_key(size)));
      CHECK(get_one(tier, number_key(size)) == number_bytes(size, size));
    }
    tier.erase(number_key(80));
    tier.erase(number_key(5));  // never was
    CHECK(get_one(tier, number_key(80)).empty());
    CHECK_FALSE(contains_one(tier, number_key(80)));
    CHECK(get_one(tier, number_key(81)) == number_bytes(81, 81));
    tier.clear();
    CHECK(get_one(tier, number_key(81)).empty());
    CHECK_FALSE(contains_one(tier, number_key(4096)));
    CHECK(tier.put(number_key(81), number_bytes(81, 81)));
    CHECK(get_one(tier, number_key(81)) == number_bytes(81, 81));
  });
}

TEST_CASE("tier: a batch comes back in order, misses between hits, and a key may be asked for twice") {
  on_each_tier([](Tier& tier) {
    for (std::uint64_t i = 0; i < 300; i += 2) REQUIRE(tier.put(number_key(i), number_bytes(i, 100 + i)));
    std::vector<TierKey> keys = number_keys(0, 300);
    keys.push_back(number_key(4));
    std::swap(keys[1], keys[200]);
    const std::vector<bool> there = tier.contains(keys);
    const std::vector<std::vector<std::byte>> values = tier.get(keys);
    REQUIRE(there.size() == keys.size());
    REQUIRE(values.size() == keys.size());
    for (std::size_t i = 0; i < 300; ++i) {
      const std::size_t number = i == 1 ? 200 : i == 200 ? 1 : i;
      CAPTURE(i);
      CHECK(there[i] == (number % 2 == 0));
      CHECK(values[i] == (number % 2 == 0 ? number_bytes(number, 100 + number) : std::vector<std::byte>()));
    }
    CHECK(values[300] == number_bytes(4, 104));
    CHECK(tier.get({}).empty());
    CHECK(tier.contains({}).empty());
  });
}

TEST_CASE("tier: a key that is held is not written again, and the counters tell") {
  on_each_tier([](Tier& tier) {
    CHECK(tier.put(number_key(1), number_bytes(1, 1000)));
    CHECK(tier.put(number_key(1), number_bytes(1, 1000)));
    CHECK_FALSE(tier.put(number_key(2), {}));  // no entry is ever empty
    get_one(tier, number_key(1));
    get_one(tier, number_key(2));
    const TierStats stats = tier.stats();
    CHECK(stats.puts == 3);
    CHECK(stats.rejected == 1);
    CHECK(stats.bytes_written == 1000);
    CHECK(stats.gets == 2);
    CHECK(stats.hits == 1);
    CHECK(stats.bytes_read == 1000);
    CHECK(stats.read_seconds > 0);
    CHECK(stats.write_seconds > 0);
    CHECK(stats.corrupt == 0);
    CHECK(stats.errors == 0);
    CHECK(stats.evictions == 0);
    const bool knows = stats.capacity_bytes != 0;
    CHECK(stats.entries == (knows ? 1 : 0));
    CHECK((stats.bytes >= 1000) == knows);
    CHECK_FALSE(tier.name().empty());
  });
}

TEST_CASE("tier: an entry larger than any may be is rejected unread") {
  constexpr std::size_t kSize = kMaxEntryBytes + 1;
  void* const closed = ::mmap(nullptr, kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(closed != MAP_FAILED);
  on_each_tier([&](Tier& tier) {
    CHECK_FALSE(tier.put(number_key(1), {static_cast<const std::byte*>(closed), kSize}));
    CHECK(tier.stats().rejected == 1);
    CHECK(tier.stats().errors == 0);
  });
  ::munmap(closed, kSize);
}

TEST_CASE("tier: many threads at once read no wrong byte") {
  on_each_tier([](Tier& tier) {
    constexpr std::uint32_t kThreads = 4, kKeys = 40, kSteps = 150;
    std::vector<std::uint64_t> hits(kThreads), wrong(kThreads);
    std::vector<std::thread> threads;
    for (std::uint32_t number = 0; number < kThreads; ++number) {
      threads.emplace_back([&, number] {
        test::Random random(number);
        for (std::uint32_t step = 0; step < kSteps; ++step) {
          const std::uint64_t first = random.below(kKeys);
          if (random.chance(40)) {
            tier.put(number_key(first), number_bytes(first, 500 + first));
          } else if (random.chance(10)) {
            tier.erase(number_key(first));
          } else if (random.chance(10)) {
            tier.contains(number_keys(first, 5));
          } else {
            const auto values = tier.get(number_keys(first, 5));
            for (std::uint64_t i = 0; i < values.size(); ++i) {
              if (values[i].empty()) continue;
              ++hits[number];
              wrong[number] += values[i] != number_bytes(first + i, 500 + first + i);
            }
          }
          if (number == 0 && step % 100 == 50) tier.clear();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (std::uint32_t number = 0; number < kThreads; ++number) {
      CHECK(wrong[number] == 0);
      CHECK(hits[number] > 0);
    }
    CHECK(tier.stats().corrupt == 0);
  });
}

TEST_CASE("tier: the names of keys") {
  TierKey key;
  for (std::size_t i = 0; i < key.bytes.size(); ++i) key.bytes[i] = static_cast<std::byte>(i * 8 + 3);
  CHECK(tier_key_text(key) == "030b131b232b333b434b535b636b737b838b939ba3abb3bbc3cbd3dbe3ebf3fb");
}

}  // namespace
}  // namespace kvant
