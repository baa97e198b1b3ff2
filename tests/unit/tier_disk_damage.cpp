// The disk tier and files that are not what was written: damage of every kind is a miss and counted, never a wrong
// byte.
#include <doctest/doctest.h>

#include <sys/stat.h>

#include <fstream>

#include "tier_entry.hpp"
#include "tier_fixtures.hpp"

namespace kvant {
namespace {

using test::get_one;
using test::number_bytes;
using test::number_key;
using test::open_disk;

std::vector<char> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.is_open());
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::filesystem::path& path, const std::vector<char>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

TEST_CASE("tier disk: every flipped bit and every shorter length is a miss, counted, and the file goes") {
  const test::TierFolder folder;
  const auto tier = open_disk(folder);
  const TierKey key = number_key(1);
  REQUIRE(tier->put(key, number_bytes(1, 24)));
  const std::vector<char> sound = read_file(folder.file(key));
  REQUIRE(sound.size() == kEntryHeaderBytes + 24);
  std::uint64_t corrupt = 0;
  const auto is_seen = [&](const std::vector<char>& bytes) {
    write_file(folder.file(key), bytes);
    REQUIRE(get_one(*tier, key).empty());
    REQUIRE(tier->stats().corrupt == ++corrupt);
    REQUIRE_FALSE(std::filesystem::exists(folder.file(key)));
  };
  for (std::size_t bit = 0; bit < 8 * sound.size(); ++bit) {
    std::vector<char> flipped = sound;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    is_seen(flipped);
  }
  for (std::size_t size = 0; size < sound.size(); ++size)
    is_seen({sound.begin(), sound.begin() + static_cast<long>(size)});
  std::vector<char> longer = sound;
  longer.push_back(0);
  is_seen(longer);
  write_file(folder.file(key), sound);
  CHECK(get_one(*tier, key) == number_bytes(1, 24));
  CHECK(tier->stats().errors == 0);
  CHECK(tier->stats().corrupt == 8 * sound.size() + sound.size() + 1);
}

TEST_CASE("tier disk: swapped files and foreign ones are misses, also for a tier that starts with them") {
  const test::TierFolder folder;
  const TierKey one = number_key(1), two = number_key(2), three = number_key(3);
  {
    const auto tier = open_disk(folder);
    for (std::uint64_t i = 1; i <= 3; ++i) REQUIRE(tier->put(number_key(i), number_bytes(i, 500)));
  }
  const std::vector<char> first = read_file(folder.file(one)), second = read_file(folder.file(two));
  write_file(folder.file(one), second);
  write_file(folder.file(two), first);
  write_file(folder.file(three), std::vector<char>(580, 'x'));
  const auto tier = open_disk(folder);
  CHECK(tier->stats().entries == 3);
  for (const TierKey& key : {one, two, three}) CHECK(get_one(*tier, key).empty());
  CHECK(tier->stats().corrupt == 3);
  CHECK(tier->stats().entries == 0);
  CHECK(folder.files().empty());
  // What was damaged can be stored again.
  REQUIRE(tier->put(one, number_bytes(1, 500)));
  CHECK(get_one(*tier, one) == number_bytes(1, 500));
}

TEST_CASE("tier disk: a file of the wrong length is replaced by a put") {
  const test::TierFolder folder;
  const auto tier = open_disk(folder);
  REQUIRE(tier->put(number_key(1), number_bytes(1, 500)));
  std::filesystem::resize_file(folder.file(number_key(1)), 100);
  REQUIRE(tier->put(number_key(1), number_bytes(1, 500)));
  CHECK(get_one(*tier, number_key(1)) == number_bytes(1, 500));
  CHECK(tier->stats().bytes_written == 1000);
}

TEST_CASE("tier disk: a part of an entry, huge holes, links, pipes and folders under an entry's name are no entries") {
  const test::TierFolder folder;
  const auto tier = open_disk(folder);
  const TierKey key = number_key(1);
  REQUIRE(tier->put(key, number_bytes(1, 500)));
  const std::filesystem::path file = folder.file(key);
  std::uint64_t corrupt = 0;

  const std::vector<std::byte> part = make_entry(key, number_bytes(1, 500), {0, 2, 0});
  write_file(file,
             {reinterpret_cast<const char*>(part.data()), reinterpret_cast<const char*>(part.data() + part.size())});
  CHECK(get_one(*tier, key).empty());
  CHECK(tier->stats().corrupt == ++corrupt);

  // A header that agrees with a file of 8 TiB, all of it a hole.
  REQUIRE(tier->put(key, number_bytes(1, 500)));
  std::vector<char> hole = read_file(file);
  const std::uint64_t size = std::uint64_t{8} << 40;
  std::memcpy(hole.data() + 56, &size, 8);
  write_file(file, hole);
  std::error_code too_large_here;
  std::filesystem::resize_file(file, size + kEntryHeaderBytes, too_large_here);
  CHECK(get_one(*tier, key).empty());
  CHECK(tier->stats().corrupt == ++corrupt);

  REQUIRE(tier->put(key, number_bytes(1, 500)));
  std::filesystem::rename(file, folder.path() / "elsewhere");
  std::filesystem::create_symlink(folder.path() / "elsewhere", file);
  CHECK(get_one(*tier, key).empty());
  CHECK(tier->stats().corrupt == ++corrupt);
  CHECK(std::filesystem::exists(folder.path() / "elsewhere"));

  REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
  CHECK(get_one(*tier, key).empty());
  CHECK(tier->stats().corrupt == ++corrupt);

  std::filesystem::create_directory(file);
  CHECK(get_one(*tier, key).empty());
  CHECK(tier->stats().corrupt == ++corrupt);
  CHECK_FALSE(tier->put(key, number_bytes(1, 500)));
  CHECK(tier->stats().errors == 1);
  CHECK(folder.files().size() == 1);  // `elsewhere`; no temporary file is left
}

}  // namespace
}  // namespace kvant
