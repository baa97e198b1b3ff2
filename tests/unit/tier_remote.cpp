// The remote tier beside real memcached servers of this machine: large entries, damage, and servers that die, hang and
// come back.
#include <doctest/doctest.h>

#include <atomic>
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
using test::open_remote;

std::string part_name(const TierKey& key, int part) {
  return "kvant1:" + tier_key_text(key) + "." + std::to_string(part);
}

// Stores raw bytes past the tier.
void plant(const test::MemcachedServer& server, const std::string& name, std::span<const std::byte> value) {
  std::string text = "set " + name + " 0 0 " + std::to_string(value.size()) + "\r\n";
  text.append(reinterpret_cast<const char*>(value.data()), value.size()).append("\r\n");
  REQUIRE(server.command(text) == "STORED\r\n");
}

TEST_CASE("tier remote: what is wrong with a spec is said") {
  const auto code = [](const char* servers, std::uint32_t timeout_ms, std::uint64_t max_value_bytes) {
    return make_remote_tier({servers, timeout_ms, max_value_bytes}).status().code();
  };
  for (const char* servers : {"", ",", "a,", ",a", "a,,b", ":11211", "a:", "a:0", "a:65536", "a:-1", "a:1x", "a b:1",
                              "[::1", "[::1]x", "[]:1"}) {
    CAPTURE(servers);
    CHECK(code(servers, 100, 1000) == StatusCode::invalid_argument);
  }
  CHECK(code("127.0.0.1", 0, 1000) == StatusCode::invalid_argument);
  CHECK(code("127.0.0.1", 100, 100) == StatusCode::invalid_argument);
  if (!test::have_memcached()) return;
  for (const char* servers : {"127.0.0.1", "localhost:1,127.0.0.1:65535", "[::1]:11211,[::1]"}) {
    CAPTURE(servers);
    CHECK(code(servers, 100, UINT64_MAX) == StatusCode::ok);
  }
}

TEST_CASE("tier remote: no server at all is a miss and a rejected put, counted") {
  if (!test::have_memcached()) return;
  test::Servers servers = test::start_servers(2);
  for (const auto& server : servers) server->kill();
  const auto tier = open_remote(servers);
  for (int round = 0; round < 3; ++round) {
    CHECK_FALSE(tier->put(number_key(1), number_bytes(1, 100)));
    for (const auto& value : tier->get(number_keys(0, 100))) CHECK(value.empty());
    CHECK_FALSE(contains_one(*tier, number_key(1)));
  }
  tier->erase(number_key(1));
  tier->clear();
  CHECK(tier->stats().rejected == 3);
  CHECK(tier->stats().errors >= 3);
  CHECK(tier->stats().gets == 300);
  CHECK(tier->stats().corrupt == 0);
}

TEST_CASE("tier remote: keys are spread over the servers, and two tiers find each other's entries") {
  if (!test::have_memcached()) return;
  const test::Servers servers = test::start_servers(3);
  const auto one = open_remote(servers), two = open_remote(servers);
  for (std::uint64_t i = 0; i < 200; ++i) REQUIRE(one->put(number_key(i), number_bytes(i, 100)));
  const auto values = two->get(number_keys(0, 200));
  for (std::uint64_t i = 0; i < 200; ++i) CHECK(values[i] == number_bytes(i, 100));
  std::uint64_t items = 0;
  for (const auto& server : servers) {
    CHECK(server->statistic("curr_items") > 40);  // of 400, marks included
    items += server->statistic("curr_items");
  }
  CHECK(items == 400);
  // A refresh moves no values.
  REQUIRE(two->put(number_key(7), number_bytes(7, 100)));
  CHECK(two->stats().bytes_written == 0);
}

TEST_CASE("tier remote: entries larger than a server takes are cut and joined") {
  if (!test::have_memcached()) return;
  const test::Servers servers = test::start_servers(3);
  {
    const auto tier = open_remote(servers);
    const std::size_t part = (1u << 20) - 1024 - kEntryHeaderBytes;
    for (const std::size_t size : {part - 1, part, part + 1, 2 * part, 5 * part + 17}) {
      CAPTURE(size);
      REQUIRE(tier->put(number_key(size), number_bytes(size, size)));
      CHECK(get_one(*tier, number_key(size)) == number_bytes(size, size));
    }
    CHECK(tier->stats().errors == 0);
  }
  const auto tier = open_remote(servers, 2000, 200);  // 120 bytes a part
  for (std::uint64_t i = 0; i < 20; ++i) REQUIRE(tier->put(number_key(i), number_bytes(i, 1 + 300 * i)));
  const auto values = tier->get(number_keys(0, 21));
  for (std::uint64_t i = 0; i < 20; ++i) CHECK(values[i] == number_bytes(i, 1 + 300 * i));
  CHECK(values[20].empty());
  CHECK_FALSE(tier->put(number_key(99), number_bytes(99, 120 * kMaxEntryParts + 1)));  // too many parts
  CHECK(tier->stats().rejected == 1);
  CHECK(tier->stats().errors == 0);
}

TEST_CASE("tier remote: what a server does not take is rejected") {
  if (!test::have_memcached()) return;
  const test::Servers servers = test::start_servers(1);
  const auto tier = open_remote(servers, 2000, 8u << 20);  // more than the server's largest item
  CHECK_FALSE(tier->put(number_key(1), number_bytes(1, 3u << 20)));
  CHECK(tier->stats().rejected == 1);
  CHECK(get_one(*tier, number_key(1)).empty());
  CHECK(tier->put(number_key(2), number_bytes(2, 1000)));
  CHECK(get_one(*tier, number_key(2)) == number_bytes(2, 1000));
}

TEST_CASE("tier remote: damaged, foreign and swapped parts are misses, counted and erased") {
  if (!test::have_memcached()) return;
  const test::Servers servers = test::start_servers(1);
  const test::MemcachedServer& server = *servers[0];
  const auto tier = open_remote(servers, 2000, 200);
  const TierKey key = number_key(1), other = number_key(2);
  const std::vector<std::byte> value = number_bytes(1, 300);  // three parts
  const auto piece = [&](std::uint32_t number) {
    return std::span(value).subspan(number * 120, number == 2 ? 60 : 120);
  };
  const auto part = [&](std::uint32_t number) { return EntryPart{number, 3, hash_whole_value(value)}; };
  std::uint64_t corrupt = 0;
  const auto is_seen = [&](const std::string& name, const std::vector<std::byte>& bytes) {
    REQUIRE(tier->put(key, value));
    REQUIRE(get_one(*tier, key) == value);
    plant(server, name, bytes);
    REQUIRE(get_one(*tier, key).empty());
    REQUIRE(tier->stats().corrupt == ++corrupt);
    REQUIRE_FALSE(contains_one(*tier, key));
  };
  for (std::uint32_t number = 0; number < 3; ++number) {
    CAPTURE(number);
    const std::vector<std::byte> sound = make_entry(key, piece(number), part(number));
    for (std::size_t bit = 0; bit < 8 * sound.size(); bit += 67) {
      std::vector<std::byte> flipped = sound;
      flipped[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
      is_seen(part_name(key, static_cast<int>(number)), flipped);
    }
    is_seen(part_name(key, static_cast<int>(number)), {sound.begin(), sound.end() - 1});
    is_seen(part_name(key, static_cast<int>(number)), {});
    is_seen(part_name(key, static_cast<int>(number)), make_entry(other, piece(number), part(number)));
    is_seen(part_name(key, static_cast<int>(number)), make_entry(key, piece((number + 1) % 3), part((number + 1) % 3)));
  }
  // Parts that each are sound, of a value that is not theirs.
  is_seen(part_name(key, 1), make_entry(key, piece(0), part(1)));
  // A part that is gone, or of a value that was cut otherwise, is a plain miss.
  REQUIRE(tier->put(key, value));
  plant(server, part_name(key, 1), make_entry(key, piece(1), {1, 4, hash_whole_value(value)}));
  CHECK(get_one(*tier, key).empty());
  REQUIRE(server.command("delete " + part_name(key, 1) + "\r\n") == "DELETED\r\n");
  CHECK(get_one(*tier, key).empty());
  CHECK(tier->stats().corrupt == corrupt);
  // It is stored again, since not all of it is there.
  REQUIRE(tier->put(key, value));
  CHECK(get_one(*tier, key) == value);
  CHECK(tier->stats().errors == 0);
}

TEST_CASE("tier remote: a server is killed under load from several threads; no wrong byte, and the others serve") {
  if (!test::have_memcached()) return;
  const test::Servers servers = test::start_servers(3);
  const auto tier = open_remote(servers, 2000, 4000);
  constexpr std::uint64_t kEntries = 240;
  constexpr int kThreads = 4, kRoundsAfter = 20, kMostRounds = 2000;
  const auto size_of = [](std::uint64_t number) { return 100 + number * 53 % 9000; };  // up to three parts
  std::vector<std::vector<std::byte>> expected;
  for (std::uint64_t i = 0; i < kEntries; ++i) {
    expected.push_back(number_bytes(i, size_of(i)));
    REQUIRE(tier->put(number_key(i), expected.back()));
  }
  std::atomic<std::uint64_t> wrong{0}, rounds{0}, misses{0}, hits_after{0};
  std::atomic<bool> killed{false};
  std::vector<std::thread> threads;
  for (int number = 0; number < kThreads; ++number) {
    threads.emplace_back([&, number] {
      test::Random random(static_cast<std::uint64_t>(number));
      int rounds_after = 0;
      for (int round = 0; round < kMostRounds && rounds_after < kRoundsAfter; ++round, ++rounds) {
        const std::uint64_t first = random.below(kEntries - 50);
        const bool after = killed;
        rounds_after += after;
        const auto values = tier->get(number_keys(first, 50));
        for (std::uint64_t i = 0; i < values.size(); ++i) {
          if (values[i].empty()) ++misses;
          if (!values[i].empty() && values[i] != expected[first + i]) ++wrong;
          if (!values[i].empty() && after) ++hits_after;
        }
        const std::uint64_t put = random.below(kEntries);
        tier->put(number_key(put), expected[put]);
      }
    });
  }
  while (rounds < 40) std::this_thread::yield();
  servers[1]->kill();
  killed = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(misses > 0);
  CHECK(hits_after > 0);
  CHECK(tier->stats().corrupt == 0);
  CHECK(tier->stats().errors > 0);
  // Every key has a living server now: what is put can be read.
  std::uint64_t served = 0;
  for (int attempt = 0; attempt < 20 && served != kEntries; ++attempt) {
    for (std::uint64_t i = 0; i < kEntries; ++i) tier->put(number_key(i), expected[i]);
    const auto values = tier->get(number_keys(0, kEntries));
    served = 0;
    for (std::uint64_t i = 0; i < kEntries; ++i) served += values[i] == expected[i];
  }
  CHECK(served == kEntries);
}

TEST_CASE("tier remote: a server that comes back is used again") {
  if (!test::have_memcached()) return;
  const test::Servers servers = test::start_servers(2);
  const auto tier = open_remote(servers);
  const auto put_all = [&] {
    std::uint64_t stored = 0;
    for (std::uint64_t i = 0; i < 50; ++i) stored += tier->put(number_key(i), number_bytes(i, 100));
    return stored;
  };
  REQUIRE(put_all() == 50);
  servers[0]->kill();
  put_all();
  CHECK(put_all() == 50);
  CHECK(servers[1]->statistic("curr_items") == 100);
  servers[0]->start();
  std::uint64_t items = 0;
  for (int attempt = 0; attempt < 150 && items == 0; ++attempt) {
    put_all();
    items = servers[0]->statistic("curr_items");
    if (items == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK(items > 0);
  CHECK(put_all() == 50);
  for (std::uint64_t i = 0; i < 50; ++i) CHECK(get_one(*tier, number_key(i)) == number_bytes(i, 100));
  // What is over is not counted any more.
  const std::uint64_t errors = tier->stats().errors;
  tier->get(number_keys(1000, 100));
  CHECK(tier->stats().errors == errors);
}

TEST_CASE("tier remote: a server that hangs is a miss, and its late answers are no other entry's") {
  if (!test::have_memcached()) return;
  const test::Servers servers = test::start_servers(2);
  const auto tier = open_remote(servers, 100);
  for (std::uint64_t i = 0; i < 60; ++i) REQUIRE(tier->put(number_key(i), number_bytes(i, 500)));
  servers[0]->hang();
  std::uint64_t missed = 0;
  for (std::uint64_t i = 0; i < 60; i += 20) {
    const auto values = tier->get(number_keys(i, 20));
    for (std::uint64_t k = 0; k < 20; ++k) {
      missed += values[k].empty();
      CHECK((values[k].empty() || values[k] == number_bytes(i + k, 500)));
    }
  }
  CHECK(missed > 0);
  CHECK(missed < 60);
  servers[0]->wake();
  std::uint64_t served = 0;
  for (int attempt = 0; attempt < 150 && served != 60; ++attempt) {
    const auto values = tier->get(number_keys(0, 60));
    served = 0;
    for (std::uint64_t i = 0; i < 60; ++i) {
      served += !values[i].empty();
      CHECK((values[i].empty() || values[i] == number_bytes(i, 500)));
    }
    if (served != 60) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK(served == 60);
  CHECK(tier->stats().corrupt == 0);
}

}  // namespace
}  // namespace kvant
