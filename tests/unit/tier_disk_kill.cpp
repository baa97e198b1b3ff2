// A process that writes to a disk tier is killed at random moments. Whatever was being written is lost, and nothing
// else: what a new tier finds is right to the last byte, and no temporary file stays.
#include <doctest/doctest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "host_random.hpp"
#include "tier_fixtures.hpp"

namespace kvant {
namespace {

using test::get_one;
using test::number_bytes;
using test::number_key;
using test::open_disk;

constexpr std::uint64_t kEntries = 60;
constexpr std::uint64_t kLimit = 4u << 20;
std::size_t size_of(std::uint64_t number) { return 20'000 + 7919 * number % 150'000; }

// Puts entries, some of them held, some evicted, until it is killed; tells of the first one.
[[noreturn]] void write_until_killed(const test::TierFolder& folder, std::uint64_t seed, int told,
                                     const std::vector<std::vector<std::byte>>& values) {
  auto made = make_disk_tier({folder.path().string(), kLimit});
  if (!made.ok()) ::_exit(1);
  test::Random random(seed);
  for (bool first = true;; first = false) {
    const std::uint64_t number = random.below(kEntries);
    made.value()->put(number_key(number), values[number]);
    const char byte = 1;
    if (first && ::write(told, &byte, 1) != 1) ::_exit(1);
  }
}

std::size_t temporary_files(const test::TierFolder& folder) {
  std::size_t count = 0;
  for (const auto& file : folder.files()) count += file.extension() == ".tmp";
  return count;
}

TEST_CASE("tier disk: killed at any moment, it reads no wrong byte and leaves no temporary file") {
  const test::TierFolder folder;
  std::vector<std::vector<std::byte>> values;
  for (std::uint64_t i = 0; i < kEntries; ++i) values.push_back(number_bytes(i, size_of(i)));
  test::Random random(77);
  std::uint64_t hits = 0;
  std::size_t left_behind = 0;
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) write_until_killed(folder, static_cast<std::uint64_t>(round), pipe[1], values);
    ::close(pipe[1]);
    char byte = 0;
    CHECK(::read(pipe[0], &byte, 1) == 1);
    ::close(pipe[0]);
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(5000)));
    REQUIRE(::kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    left_behind += temporary_files(folder);

    const auto tier = open_disk(folder, kLimit);
    CHECK(temporary_files(folder) == 0);
    CHECK(tier->stats().entries > 0);
    for (std::uint64_t i = 0; i < kEntries; ++i) {
      const auto value = get_one(*tier, number_key(i));
      hits += !value.empty();
      REQUIRE((value.empty() || value == values[i]));
    }
    CHECK(tier->stats().corrupt == 0);
    CHECK(tier->stats().errors == 0);
    CHECK(tier->stats().bytes <= kLimit);
    if (round % 10 == 9) tier->clear();
  }
  CHECK(hits > 60);
  // Some kills must have hit a write, else nothing was tried.
  CHECK(left_behind > 0);
}

TEST_CASE("tier disk: a starting tier leaves the temporary files of living writers alone") {
  const test::TierFolder folder;
  const auto tier = open_disk(folder);
  std::vector<std::vector<std::byte>> values;
  for (std::uint64_t i = 0; i < kEntries; ++i) values.push_back(number_bytes(i, size_of(i)));
  std::thread writer([&] {
    for (std::uint64_t i = 0; i < kEntries; ++i) tier->put(number_key(i), values[i]);
  });
  for (int i = 0; i < 100; ++i) open_disk(folder);
  writer.join();
  CHECK(tier->stats().errors == 0);
  for (std::uint64_t i = 0; i < kEntries; ++i) CHECK(get_one(*tier, number_key(i)) == values[i]);
}

}  // namespace
}  // namespace kvant
