// The disk tier: its limit, its restarts, two tiers on one folder, and a disk that is full.
#include <doctest/doctest.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <fstream>
#include <thread>

#include "host_random.hpp"
#include "tier_entry.hpp"
#include "tier_fixtures.hpp"

namespace kvant {
namespace {

using test::contains_one;
using test::get_one;
using test::number_bytes;
using test::number_key;
using test::number_keys;
using test::open_disk;

constexpr std::size_t kSize = 1000;
constexpr std::uint64_t kFileBytes = kSize + kEntryHeaderBytes;

TEST_CASE("tier disk: files have the documented names, and the folder is made") {
  const test::TierFolder folder;
  auto made = make_disk_tier({(folder.path() / "a" / "b").string(), 0});
  REQUIRE(made.ok());
  REQUIRE(made.value()->put(number_key(1), number_bytes(1, kSize)));
  const std::string text = tier_key_text(number_key(1));
  const auto file = folder.path() / "a" / "b" / text.substr(0, 2) / (text + ".kv");
  REQUIRE(std::filesystem::file_size(file) == kFileBytes);
  CHECK(folder.files().size() == 1);
  CHECK(make_disk_tier({(file / "c").string(), 0}).status().code() == StatusCode::unavailable);
  CHECK(make_disk_tier({"", 0}).status().code() == StatusCode::unavailable);
}

TEST_CASE("tier disk: the limit holds, and the least recently used file leaves") {
  const test::TierFolder folder;
  const auto tier = open_disk(folder, 5 * kFileBytes + 10);
  for (std::uint64_t i = 0; i < 5; ++i) REQUIRE(tier->put(number_key(i), number_bytes(i, kSize)));
  get_one(*tier, number_key(0));
  REQUIRE(tier->put(number_key(1), number_bytes(1, kSize)));
  REQUIRE(tier->put(number_key(5), number_bytes(5, kSize)));
  CHECK_FALSE(contains_one(*tier, number_key(2)));
  CHECK_FALSE(std::filesystem::exists(folder.file(number_key(2))));
  for (const std::uint64_t i : {0u, 1u, 3u, 4u, 5u}) CHECK(get_one(*tier, number_key(i)) == number_bytes(i, kSize));
  CHECK_FALSE(tier->put(number_key(6), number_bytes(6, 6 * kSize)));  // larger than the tier
  CHECK(folder.files().size() == 5);
  const TierStats stats = tier->stats();
  CHECK(stats.entries == 5);
  CHECK(stats.bytes == 5 * kFileBytes);
  CHECK(stats.capacity_bytes == 5 * kFileBytes + 10);
  CHECK(stats.evictions == 1);
  CHECK(stats.rejected == 1);
  CHECK(stats.errors == 0);
}

TEST_CASE("tier disk: entries and the order of their use survive a restart") {
  const test::TierFolder folder;
  {
    const auto tier = open_disk(folder);
    for (std::uint64_t i = 0; i < 20; ++i) REQUIRE(tier->put(number_key(i), number_bytes(i, kSize)));
    get_one(*tier, number_key(3));
    REQUIRE(tier->put(number_key(1), number_bytes(1, kSize)));
  }
  {
    const auto tier = open_disk(folder);
    CHECK(tier->stats().entries == 20);
    CHECK(tier->stats().bytes == 20 * kFileBytes);
  }
  // A smaller limit: those that were used last are left.
  const auto tier = open_disk(folder, 4 * kFileBytes);
  CHECK(tier->stats().entries == 4);
  CHECK(tier->stats().evictions == 16);
  CHECK(folder.files().size() == 4);
  for (const std::uint64_t i : {18u, 19u, 3u, 1u}) CHECK(get_one(*tier, number_key(i)) == number_bytes(i, kSize));
}

TEST_CASE("tier disk: files that are not the tier's are left alone") {
  const test::TierFolder folder;
  const auto parts = folder.path() / "ab";
  std::filesystem::create_directories(parts);
  std::filesystem::create_directories(folder.path() / "notes");
  const std::string digits(64, 'a'), wrong_part = "cd" + std::string(62, '0');
  const std::vector<std::filesystem::path> foreign = {folder.path() / "readme.txt",
                                                      folder.path() / "notes" / (digits + ".kv"),
                                                      parts / "a.kv",
                                                      parts / "b.tmp",
                                                      parts / (wrong_part + ".kv"),
                                                      parts / ("ab" + std::string(62, 'X') + ".kv"),
                                                      parts / ("ab" + std::string(62, 'G') + ".1.1.tmp")};
  for (const auto& file : foreign) std::ofstream(file) << "not ours";
  const auto tier = open_disk(folder, kFileBytes);
  CHECK(tier->stats().entries == 0);
  for (std::uint64_t i = 0; i < 5; ++i) REQUIRE(tier->put(number_key(i), number_bytes(i, kSize)));
  tier->clear();
  CHECK(folder.files().size() == foreign.size());
  for (const auto& file : foreign) CHECK(std::filesystem::exists(file));
}

TEST_CASE("tier disk: two tiers on one folder") {
  const test::TierFolder folder;
  const auto one = open_disk(folder, 10 * kFileBytes), two = open_disk(folder, 10 * kFileBytes);
  REQUIRE(one->put(number_key(1), number_bytes(1, kSize)));
  CHECK(contains_one(*two, number_key(1)));
  CHECK(get_one(*two, number_key(1)) == number_bytes(1, kSize));
  CHECK(two->stats().entries == 1);
  REQUIRE(two->put(number_key(1), number_bytes(1, kSize)));
  CHECK(two->stats().bytes_written == 0);
  two->erase(number_key(1));
  CHECK(get_one(*one, number_key(1)).empty());
  CHECK(one->stats().entries == 0);
  CHECK(one->stats().errors == 0);
  CHECK(one->stats().corrupt == 0);
  // A file that vanished under a tier that knows it is written anew.
  REQUIRE(one->put(number_key(2), number_bytes(2, kSize)));
  two->clear();
  REQUIRE(one->put(number_key(2), number_bytes(2, kSize)));
  CHECK(get_one(*two, number_key(2)) == number_bytes(2, kSize));
}

TEST_CASE("tier disk: two tiers on one folder, used at once, under a limit that keeps files coming and going") {
  const test::TierFolder folder;
  std::vector<std::unique_ptr<Tier>> tiers;
  for (int i = 0; i < 2; ++i) tiers.push_back(open_disk(folder, 8 * kFileBytes));
  std::vector<std::uint64_t> hits(4), wrong(4);
  std::vector<std::thread> threads;
  for (std::size_t number = 0; number < 4; ++number) {
    threads.emplace_back([&, number] {
      Tier& tier = *tiers[number % 2];
      test::Random random(number);
      for (int step = 0; step < 400; ++step) {
        const std::uint64_t entry = random.below(20);
        if (random.chance(50)) tier.put(number_key(entry), number_bytes(entry, kSize));
        const auto value = get_one(tier, number_key(entry));
        hits[number] += !value.empty();
        wrong[number] += !value.empty() && value != number_bytes(entry, kSize);
        if (step % 100 == 99) open_disk(folder);  // a third one starts, and removes nothing that is being written
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t number = 0; number < 4; ++number) {
    CHECK(hits[number] > 0);
    CHECK(wrong[number] == 0);
  }
  for (const auto& tier : tiers) {
    CHECK(tier->stats().corrupt == 0);
    CHECK(tier->stats().errors == 0);
    CHECK(tier->stats().bytes <= 8 * kFileBytes);
  }
  CHECK(folder.files().size() <= 16);  // each tier holds the limit over the files that it knows
}

TEST_CASE("tier disk: a folder that is gone and a disk that is full are rejected puts, not more") {
  const test::TierFolder folder;
  const auto tier = open_disk(folder);
  REQUIRE(tier->put(number_key(1), number_bytes(1, kSize)));
  // In a child, since the limit that stands for a full disk is one of the process.
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{5000, 5000};
    bool right = ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
    right &= !tier->put(number_key(2), number_bytes(2, 100'000));
    right &= tier->stats().errors == 1 && tier->stats().rejected == 1 && tier->stats().corrupt == 0;
    right &= get_one(*tier, number_key(2)).empty();
    right &= get_one(*tier, number_key(1)) == number_bytes(1, kSize);
    right &= tier->put(number_key(3), number_bytes(3, kSize));
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(folder.files().size() == 2);  // no temporary file is left of the one that did not fit
  std::filesystem::remove_all(folder.path());
  CHECK_FALSE(tier->put(number_key(4), number_bytes(4, kSize)));
  CHECK(tier->stats().errors == 1);
  CHECK(get_one(*tier, number_key(1)).empty());
}

}  // namespace
}  // namespace kvant
