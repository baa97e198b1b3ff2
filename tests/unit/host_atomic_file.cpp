// Files that are there whole or not at all: names that are taken, disks that are full, writers that give up.
#include "atomic_file.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tier_fixtures.hpp"

namespace kvant {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string text_in(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::unique_ptr<AtomicFile> create(const std::filesystem::path& path) {
  auto made = AtomicFile::create(path.string());
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  return std::move(made).value();
}

TEST_CASE("host atomic_file: what is not committed was never there") {
  const test::TierFolder folder;
  const std::filesystem::path path = folder.path() / "state";
  {
    const auto file = create(path);
    REQUIRE(file->write(bytes_of("half")).ok());
    CHECK_FALSE(std::filesystem::exists(path));
  }
  CHECK(folder.files().empty());
  std::ofstream(path) << "old";
  {
    const auto file = create(path);
    REQUIRE(file->write(bytes_of("new")).ok());
    CHECK(text_in(path) == "old");
    REQUIRE(file->write(bytes_of("er")).ok());
    REQUIRE(file->commit().ok());
    CHECK(text_in(path) == "newer");
  }
  CHECK(text_in(path) == "newer");
  CHECK(folder.files().size() == 1);
}

TEST_CASE("host atomic_file: several writers of one name do not meet") {
  const test::TierFolder folder;
  const std::filesystem::path path = folder.path() / "state";
  const auto first = create(path), second = create(path), third = create(path);
  REQUIRE(first->write(bytes_of("first")).ok());
  REQUIRE(second->write(bytes_of("the second")).ok());
  REQUIRE(third->write(bytes_of("3")).ok());
  REQUIRE(second->commit().ok());
  CHECK(text_in(path) == "the second");
  REQUIRE(first->commit().ok());
  CHECK(text_in(path) == "first");
  REQUIRE(third->commit().ok());
  CHECK(text_in(path) == "3");
  CHECK(folder.files().size() == 1);
}

TEST_CASE("host atomic_file: a committed file is closed once") {
  const test::TierFolder folder;
  auto file = create(folder.path() / "state");
  REQUIRE(file->commit().ok());
  // The number that was its own may be another's by now.
  std::vector<int> others;
  for (int i = 0; i < 4; ++i) others.push_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  file.reset();
  for (const int other : others) {
    CHECK(::fcntl(other, F_GETFD) >= 0);
    ::close(other);
  }
}

TEST_CASE("host atomic_file: a name that cannot be taken is an error, and nothing is left") {
  const test::TierFolder folder;
  const std::filesystem::path path = folder.path() / "state";
  std::filesystem::create_directory(path);
  {
    const auto file = create(path);
    REQUIRE(file->write(bytes_of("text")).ok());
    const Status status = file->commit();
    CHECK(status.code() == StatusCode::unavailable);
    CHECK(status.message().find("cannot name " + path.string()) == 0);
  }
  CHECK(folder.files().empty());
  CHECK(AtomicFile::create((folder.path() / "no" / "folder").string()).status().code() == StatusCode::unavailable);
  CHECK(FileReader::open((folder.path() / "none").string()).status().code() == StatusCode::not_found);
  const auto reader = FileReader::open(path.string());
  REQUIRE(reader.ok());
  std::vector<std::byte> out(4);
  CHECK(reader.value()->read(out).status().code() == StatusCode::unavailable);
}

TEST_CASE("host atomic_file: a disk that takes a part only is an error") {
  const test::TierFolder folder;
  const std::string path = (folder.path() / "state").string();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // a process of its own, since it may write no more than so much into a file
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit few{1000, 1000};
    if (::setrlimit(RLIMIT_FSIZE, &few) != 0) ::_exit(2);
    const auto file = AtomicFile::create(path);
    if (!file.ok()) ::_exit(3);
    const std::vector<std::byte> piece(700);
    if (!file.value()->write(piece).ok()) ::_exit(4);
    ::_exit(file.value()->write(piece).code() == StatusCode::unavailable ? 0 : 5);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace kvant
