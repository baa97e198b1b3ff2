// An engine's own tier: what its functions get, and what is believed of what they give back.
#include <doctest/doctest.h>

#include "tier_entry.hpp"
#include "tier_fixtures.hpp"

namespace kvant {
namespace {

using test::get_one;
using test::number_bytes;
using test::number_key;

std::unique_ptr<Tier> open_custom(const CustomTierFunctions& functions) {
  auto made = make_custom_tier(functions);
  REQUIRE(made.ok());
  return std::move(made).value();
}

TEST_CASE("tier custom: put and get are required, the rest is not") {
  test::EngineStore store;
  CustomTierFunctions functions = store.functions();
  functions.put = nullptr;
  CHECK(make_custom_tier(functions).status().code() == StatusCode::invalid_argument);
  functions = store.functions();
  functions.get = nullptr;
  CHECK(make_custom_tier(functions).status().message().find("get") != std::string::npos);
  functions = store.functions();
  functions.name = nullptr, functions.contains = nullptr, functions.erase = nullptr, functions.clear = nullptr;
  const auto tier = open_custom(functions);
  CHECK(tier->name() == "custom");
  CHECK_FALSE(test::contains_one(*tier, number_key(1)));
  CHECK(tier->put(number_key(1), number_bytes(1, 10)));
  CHECK(test::contains_one(*tier, number_key(1)));
  tier->erase(number_key(1));
  tier->clear();
  CHECK(get_one(*tier, number_key(1)) == number_bytes(1, 10));
}

TEST_CASE("tier custom: the name is copied") {
  test::EngineStore store;
  std::string name = "a store of the engine";
  CustomTierFunctions functions = store.functions();
  functions.name = name.c_str();
  const auto tier = open_custom(functions);
  name.assign(name.size(), 'x');
  CHECK(tier->name() == "a store of the engine");
}

TEST_CASE("tier custom: flipped, cut and swapped entries are misses, counted and erased") {
  test::EngineStore store;
  const auto tier = open_custom(store.functions());
  REQUIRE(tier->put(number_key(1), number_bytes(1, 20)));
  REQUIRE(tier->put(number_key(2), number_bytes(2, 20)));
  std::vector<std::byte>& stored = store.entries.begin()->second;
  const auto key_text = store.entries.begin()->first;
  TierKey key;
  std::memcpy(key.bytes.data(), key_text.data(), 32);
  const std::vector<std::byte> sound = stored, other = std::prev(store.entries.end())->second;
  std::vector<std::vector<std::byte>> damaged = {other};
  for (std::size_t size = 1; size < sound.size(); ++size)
    damaged.push_back({sound.begin(), sound.begin() + static_cast<long>(size)});
  for (std::size_t bit = 0; bit < 8 * sound.size(); ++bit) {
    damaged.push_back(sound);
    damaged.back()[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
  }
  damaged.push_back(make_entry(key, number_bytes(1, 20), {0, 2, 0}));  // a part is no entry
  std::uint64_t corrupt = 0;
  for (const std::vector<std::byte>& bytes : damaged) {
    store.entries[key_text] = bytes;
    REQUIRE(get_one(*tier, key).empty());
    REQUIRE(tier->stats().corrupt == ++corrupt);
    REQUIRE(store.entries.count(key_text) == 0);
  }
  store.entries[key_text] = sound;
  CHECK_FALSE(get_one(*tier, key).empty());
}

TEST_CASE("tier custom: lies about sizes cost no memory and do not last") {
  test::EngineStore store;
  CustomTierFunctions functions = store.functions();
  functions.get = [](void*, const std::uint8_t*, void*, std::uint64_t) -> std::uint64_t { return UINT64_MAX; };
  const auto huge = open_custom(functions);
  CHECK(get_one(*huge, number_key(1)).empty());
  CHECK(huge->stats().corrupt == 1);
  // Always one more than there is room for.
  functions.get = [](void*, const std::uint8_t*, void*, std::uint64_t size) -> std::uint64_t { return size + 100; };
  const auto growing = open_custom(functions);
  CHECK(get_one(*growing, number_key(1)).empty());
  CHECK(growing->stats().errors == 1);
}

TEST_CASE("tier custom: an entry that the engine does not take is rejected") {
  test::EngineStore store;
  store.full = true;
  const auto tier = open_custom(store.functions());
  CHECK_FALSE(tier->put(number_key(1), number_bytes(1, 10)));
  CHECK(tier->stats().rejected == 1);
  CHECK(get_one(*tier, number_key(1)).empty());
}

}  // namespace
}  // namespace kvant
