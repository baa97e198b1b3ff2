// The memory tier: its limit, and who leaves.
#include <doctest/doctest.h>

#include <algorithm>
#include <list>

#include "host_random.hpp"
#include "tier_fixtures.hpp"

namespace kvant {
namespace {

using test::contains_one;
using test::get_one;
using test::number_bytes;
using test::number_key;

TEST_CASE("tier memory: the least recently used entry leaves, by gets and by puts") {
  // The cost of an entry, from the tier itself.
  const auto probe = make_memory_tier(1u << 20);
  REQUIRE(probe->put(number_key(0), number_bytes(0, 1000)));
  const std::uint64_t cost = probe->stats().bytes;
  CHECK(cost > 1000);
  const auto tier = make_memory_tier(3 * cost);
  for (std::uint64_t i = 0; i < 3; ++i) REQUIRE(tier->put(number_key(i), number_bytes(i, 1000)));
  CHECK(tier->stats().evictions == 0);
  get_one(*tier, number_key(0));
  REQUIRE(tier->put(number_key(1), number_bytes(1, 1000)));
  contains_one(*tier, number_key(2));  // a question is no use
  REQUIRE(tier->put(number_key(3), number_bytes(3, 1000)));
  CHECK_FALSE(contains_one(*tier, number_key(2)));
  REQUIRE(tier->put(number_key(4), number_bytes(4, 1000)));
  CHECK_FALSE(contains_one(*tier, number_key(0)));
  for (const std::uint64_t i : {1u, 3u, 4u}) CHECK(get_one(*tier, number_key(i)) == number_bytes(i, 1000));
  CHECK(tier->stats().evictions == 2);
  CHECK(tier->stats().entries == 3);
}

TEST_CASE("tier memory: what is larger than the tier is rejected, and nothing leaves for it") {
  const auto tier = make_memory_tier(4096);
  REQUIRE(tier->put(number_key(1), number_bytes(1, 100)));
  CHECK_FALSE(tier->put(number_key(2), number_bytes(2, 4096)));
  CHECK(tier->stats().rejected == 1);
  CHECK(tier->stats().errors == 0);
  CHECK(get_one(*tier, number_key(1)) == number_bytes(1, 100));
  for (const std::uint64_t capacity : {0u, 1u, 100u})
    CHECK_FALSE(make_memory_tier(capacity)->put(number_key(1), number_bytes(1, 1)));
}

TEST_CASE("tier memory: random operations agree with a plain list") {
  test::Random random(3);
  const auto probe = make_memory_tier(1u << 20);
  REQUIRE(probe->put(number_key(0), number_bytes(0, 1)));
  const std::uint64_t fixed = probe->stats().bytes - 1;
  constexpr std::uint64_t kCapacity = 20'000;
  const auto tier = make_memory_tier(kCapacity);
  std::list<std::uint64_t> order;  // the next to leave first
  const auto size_of = [](std::uint64_t number) { return 1 + number * 37 % 900; };
  const auto bytes = [&] {
    std::uint64_t sum = 0;
    for (const std::uint64_t number : order) sum += fixed + size_of(number);
    return sum;
  };
  std::uint64_t evictions = 0;
  for (int step = 0; step < 5000; ++step) {
    const std::uint64_t number = random.below(80);
    const auto held = std::find(order.begin(), order.end(), number);
    const std::uint32_t action = random.below(100);
    if (action < 45) {
      if (held != order.end()) order.erase(held);
      for (; bytes() + fixed + size_of(number) > kCapacity; ++evictions) order.pop_front();
      order.push_back(number);
      REQUIRE(tier->put(number_key(number), number_bytes(number, size_of(number))));
    } else if (action < 90) {
      const auto value = get_one(*tier, number_key(number));
      REQUIRE(value == (held == order.end() ? std::vector<std::byte>() : number_bytes(number, size_of(number))));
      if (held != order.end()) order.splice(order.end(), order, held);
    } else {
      tier->erase(number_key(number));
      if (held != order.end()) order.erase(held);
    }
    REQUIRE(tier->stats().entries == order.size());
    REQUIRE(tier->stats().bytes == bytes());
  }
  CHECK(evictions > 100);
  CHECK(tier->stats().evictions == evictions);
}

}  // namespace
}  // namespace kvant
