// The disk tier and what else may stand in its folder: temporary files of writers that live, names that look like entries, and the
// order of uses that a restart finds.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "tier_entry.hpp"
#include "tier_fixtures.hpp"

namespace kvant {
namespace {

using test::contains_one;
using test::get_one;
using test::number_bytes;
using test::number_key;
using test::open_disk;

constexpr std::size_t kSize = 300;
constexpr std::uint64_t kFileBytes = kSize + kEntryHeaderBytes;

// A file that stays locked as long as this lives, as a writer's is.
class LockedFile {
 public:
  explicit LockedFile(const std::filesystem::path& path) {
    std::filesystem::create_directories(path.parent_path());
    file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    REQUIRE(file_ >= 0);
    REQUIRE(::flock(file_, LOCK_EX | LOCK_NB) == 0);
  }
  ~LockedFile() { ::close(file_); }
  LockedFile(const LockedFile&) = delete;
  LockedFile& operator=(const LockedFile&) = delete;

 private:
  int file_ = -1;
};

std::filesystem::path temporary_of(const test::TierFolder& folder, std::uint64_t number, const std::string& process,
                                   const std::string& count) {
  std::filesystem::path path = folder.file(number_key(number));
  return path.replace_extension("." + process + "." + count + ".tmp");
}

TEST_CASE("tier disk: a temporary file goes when nobody holds it any more") {
  const test::TierFolder folder;
  const std::filesystem::path temporary = temporary_of(folder, 1, "77", "3");
  {
    const LockedFile writer(temporary);
    CHECK(open_disk(folder)->stats().entries == 0);
    CHECK(std::filesystem::exists(temporary));
  }
  CHECK(open_disk(folder)->stats().entries == 0);
  CHECK_FALSE(std::filesystem::exists(temporary));
}

TEST_CASE("tier disk: a temporary name that is taken is no obstacle") {
  const test::TierFolder folder;
  const auto tier = open_disk(folder);
  const std::string process = std::to_string(::getpid());
  const LockedFile first(temporary_of(folder, 1, process, "0")), second(temporary_of(folder, 1, process, "1"));
  REQUIRE(tier->put(number_key(1), number_bytes(1, kSize)));
  CHECK(get_one(*tier, number_key(1)) == number_bytes(1, kSize));
  CHECK(tier->stats().errors == 0);
}

TEST_CASE("tier disk: at its start a tier takes for entries only plain files with an entry's name, all of it") {
  const test::TierFolder folder;
  {
    const auto tier = open_disk(folder);
    for (std::uint64_t i = 1; i <= 4; ++i) REQUIRE(tier->put(number_key(i), number_bytes(i, kSize)));
  }
  const std::filesystem::path elsewhere = folder.path() / "elsewhere";
  std::filesystem::rename(folder.file(number_key(1)), elsewhere);
  std::filesystem::create_symlink(elsewhere, folder.file(number_key(1)));
  std::filesystem::remove(folder.file(number_key(2)));
  std::filesystem::create_directory(folder.file(number_key(2)));
  std::filesystem::path copy = folder.file(number_key(3));
  copy += ".backup";
  std::filesystem::copy_file(folder.file(number_key(3)), copy);
  const auto tier = open_disk(folder, 2 * kFileBytes);
  CHECK(tier->stats().entries == 2);
  CHECK(tier->stats().bytes == 2 * kFileBytes);
  CHECK(tier->stats().evictions == 0);
  CHECK(std::filesystem::exists(elsewhere));
  CHECK(std::filesystem::exists(copy));
  for (const std::uint64_t i : {3u, 4u}) CHECK(get_one(*tier, number_key(i)) == number_bytes(i, kSize));
}

TEST_CASE("tier disk: what was written after a use is newer than it, however soon") {
  for (std::uint64_t round = 0; round < 20; ++round) {
    const test::TierFolder folder;
    {
      const auto tier = open_disk(folder);
      REQUIRE(tier->put(number_key(1), number_bytes(1, kSize)));
      REQUIRE(get_one(*tier, number_key(1)).size() == kSize);
      REQUIRE(tier->put(number_key(2), number_bytes(2, kSize)));
    }
    const auto tier = open_disk(folder, kFileBytes);
    REQUIRE(tier->stats().entries == 1);
    CHECK_FALSE(contains_one(*tier, number_key(1)));
    CHECK(get_one(*tier, number_key(2)) == number_bytes(2, kSize));
  }
}

}  // namespace
}  // namespace kvant
