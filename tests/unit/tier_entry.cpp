// The envelope of entries: what was sealed opens, and nothing else does.
#include <doctest/doctest.h>

#include "host_random.hpp"
#include "tier_entry.hpp"
#include "tier_fixtures.hpp"

namespace kvant {
namespace {

using test::number_bytes;
using test::number_key;

void put_number(std::vector<std::byte>& entry, std::size_t at, std::uint64_t value, int size) {
  for (int i = 0; i < size; ++i)
    entry[at + static_cast<std::size_t>(i)] = static_cast<std::byte>(value >> (8 * i) & 0xFF);
}

TEST_CASE("tier entry: opens as it was sealed, at the documented offsets") {
  const std::vector<std::byte> value = number_bytes(3, 1000);
  const EntryPart part{2, 5, 0x0123456789ABCDEF};
  const std::vector<std::byte> entry = make_entry(number_key(3), value, part);
  REQUIRE(entry.size() == kEntryHeaderBytes + 1000);
  CHECK(std::memcmp(entry.data(), "KVTE\1\0\0\0", 8) == 0);
  CHECK(std::memcmp(entry.data() + 8, number_key(3).bytes.data(), 32) == 0);
  CHECK(std::memcmp(entry.data() + 40, "\2\0\0\0\5\0\0\0\xEF\xCD\xAB\x89\x67\x45\x23\x01\xE8\3\0\0\0\0\0\0", 24) == 0);
  CHECK(std::memcmp(entry.data() + 80, value.data(), 1000) == 0);
  const auto opened = open_entry(entry, number_key(3));
  REQUIRE(opened.has_value());
  CHECK(opened->part == part);
  CHECK(std::equal(value.begin(), value.end(), opened->value.begin(), opened->value.end()));
  CHECK_FALSE(open_entry(entry, number_key(4)).has_value());
}

TEST_CASE("tier entry: every flipped bit and every length but the right one is seen") {
  std::vector<std::byte> entry = make_entry(number_key(1), number_bytes(1, 37));
  REQUIRE(open_entry(entry, number_key(1)).has_value());
  for (std::size_t bit = 0; bit < entry.size() * 8; ++bit) {
    entry[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    REQUIRE_FALSE(open_entry(entry, number_key(1)).has_value());
    entry[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
  }
  for (std::size_t size = 0; size < entry.size(); ++size)
    REQUIRE_FALSE(open_entry(std::span(entry).first(size), number_key(1)).has_value());
  std::vector<std::byte> longer = entry;
  longer.push_back(std::byte{0});
  CHECK_FALSE(open_entry(longer, number_key(1)).has_value());
  CHECK(open_entry(entry, number_key(1)).has_value());
}

TEST_CASE("tier entry: hostile numbers do not pass, even with a right checksum") {
  const TierKey key = number_key(1);
  const std::vector<std::byte> value = number_bytes(1, 64);
  for (const EntryPart& part :
       {EntryPart{1, 1, 0}, EntryPart{0, 0, 0}, EntryPart{7, 7, 0}, EntryPart{0, kMaxEntryParts + 1, 0},
        EntryPart{0, UINT32_MAX, 0}, EntryPart{UINT32_MAX, UINT32_MAX, 0}}) {
    CAPTURE(part.number);
    CAPTURE(part.parts);
    CHECK_FALSE(open_entry(make_entry(key, value, part), key).has_value());
  }
  CHECK_FALSE(open_entry(make_entry(key, {}), key).has_value());
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{63}, std::uint64_t{65}, kMaxEntryBytes + 1,
                                   UINT64_MAX - 79, UINT64_MAX - 15, UINT64_MAX}) {
    CAPTURE(size);
    std::vector<std::byte> entry = make_entry(key, value);
    put_number(entry, 56, size, 8);
    CHECK_FALSE(open_entry(entry, key).has_value());
    const auto header = std::span(entry).first<kEntryHeaderBytes>();
    // Also where the medium claims to have as much as the header says.
    CHECK(read_entry_header(header, key, size + kEntryHeaderBytes).has_value() == (size == 63 || size == 65));
  }
}

TEST_CASE("tier entry: random bytes never open") {
  test::Random random(11);
  const std::vector<std::byte> sound = make_entry(number_key(1), number_bytes(1, 200));
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::byte> entry = random.chance(50) ? sound : number_bytes(random.below(1u << 30), random.below(400));
    for (std::uint32_t change = random.between(1, 4); change > 0 && !entry.empty(); --change)
      entry[random.below(static_cast<std::uint32_t>(entry.size()))] ^= static_cast<std::byte>(random.between(1, 255));
    if (entry == sound) continue;  // two changes that undid each other
    REQUIRE_FALSE(open_entry(entry, number_key(1)).has_value());
  }
}

}  // namespace
}  // namespace kvant
