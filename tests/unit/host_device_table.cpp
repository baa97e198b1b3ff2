// MetaTable: words that reach the device in pieces, and what a recorded run cannot take.
#include <doctest/doctest.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "device_table.hpp"
#include "host_test_executor.hpp"

namespace kvant {
namespace {

constexpr std::size_t kWords = 1000;

struct Table {
  test::TestExecutor executor;
  MetaTable meta{executor};
  CommandList list;

  Table() {
    ExecutorLimits limits = executor.limits();
    limits.max_staging_bytes = 1024;
    executor.cpu.set_limits(limits);
    std::vector<std::uint32_t> words(kWords);
    std::iota(words.begin(), words.end(), 1u);
    meta.append(std::span<const std::uint32_t>(words));
  }
};

TEST_CASE("host tables: a table longer than the staging limit arrives in pieces") {
  Table table;
  REQUIRE(table.meta.upload(table.list, nullptr).ok());
  REQUIRE(table.executor.submit(table.list).ok());
  CHECK(table.executor.lists.size() == 8);  // 4000 bytes by half the limit
  CHECK_FALSE(table.meta.pending());
  const std::byte* arrived = table.executor.cpu.buffer(table.meta.range().buffer)->data();
  CHECK(std::memcmp(arrived, table.meta.words().data(), kWords * sizeof(std::uint32_t)) == 0);
}

TEST_CASE("host tables: a recorded run refuses what would need a submit of its own") {
  Table table;
  std::vector<BufferId> retired;
  const Status refused = table.meta.upload(table.list, &retired);
  CHECK(refused.code() == StatusCode::resource_exhausted);
  CHECK_MESSAGE(refused.message().find("4000 bytes are more than the 512") != std::string::npos, refused.message());
  CHECK(table.executor.lists.empty());
  CHECK(table.list.commands.empty());
  CHECK(table.meta.pending());
  REQUIRE(table.meta.upload(table.list, nullptr).ok());  // without recording it goes
}

}  // namespace
}  // namespace kvant
