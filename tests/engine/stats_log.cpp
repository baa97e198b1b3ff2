// The log's writer on a device: what it appends is what the cache says of itself, and a file of somebody else stays as
// it is.
#include "stats_log.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "stats_demo.hpp"
#include "stats_snapshot.hpp"
#include "test_device.hpp"

namespace {

using namespace kvant::tools;

std::vector<Snapshot> snapshots_of(const std::string& path) {
  std::vector<Snapshot> snapshots;
  auto reader = StatsLogReader::open(path);
  REQUIRE_MESSAGE(reader.ok(), reader.failure().message);
  const auto read = (*reader)->read([&](const std::string& line, uint64_t) -> Outcome<void> {
    auto snapshot = parse_snapshot(line);
    if (!snapshot.ok()) return snapshot.failure();
    snapshots.push_back(std::move(*snapshot));
    return {};
  });
  REQUIRE_MESSAGE(read.ok(), read.failure().message);
  CHECK_FALSE((*reader)->half_line());
  return snapshots;
}

}  // namespace

TEST_CASE("stats log: a workload and what its log says") {
  const auto device = open_test_device();
  if (device == nullptr) return;
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("kvant_stats_writer_" + std::to_string(getpid()) + ".jsonl");
  std::filesystem::remove(path);
  {
    auto demo = StatsDemo::open(device, 7);
    REQUIRE_MESSAGE(demo.ok(), demo.failure().message);
    kvant_cache* const cache = (*demo)->cache();
    const auto write = [&](int turns) {
      auto writer = StatsLogWriter::open(device->library(), path.string());
      REQUIRE_MESSAGE(writer.ok(), writer.failure().message);
      for (int i = 0; i < turns; ++i) {
        const auto turned = (*demo)->turn();
        REQUIRE_MESSAGE(turned.ok(), turned.failure().message);
        REQUIRE((*writer)->write(cache).ok());
      }
      CHECK((*writer)->lines() == static_cast<uint64_t>(turns));
    };
    write(3);
    // A writer died in the middle of a line; the next one goes on.
    std::ofstream(path, std::ios::app) << "{\"time_ms\":12,\"uni";
    write(4);

    const std::vector<Snapshot> snapshots = snapshots_of(path.string());
    REQUIRE(snapshots.size() == 7);
    kvant_prefix_stats prefix{};
    prefix.struct_size = sizeof(prefix);
    REQUIRE(device->check(device->api().prefix_stats(cache, &prefix)).ok());
    kvant_cache_stats stats{};
    stats.struct_size = sizeof(stats);
    REQUIRE(device->check(device->api().cache_stats(cache, &stats)).ok());
    const Snapshot& last = snapshots.back();
    CHECK(last.lookups.queries == prefix.lookups);
    CHECK(last.lookups.queries == 7);
    CHECK(last.lookups.hit_tokens == prefix.hit_tokens);
    CHECK(last.pool.used_pages == stats.used_pages);
    CHECK(last.sequences.size() == stats.sequence_count);
    CHECK(last.layers.front().formats() == "f16");
    CHECK(last.layers.back().formats() == "q8_0/q4_0");
    CHECK(last.policy == "adaptive");
    CHECK(last.monitored);
    CHECK(last.trends.size() == 7);
    CHECK_FALSE(last.find_latency("run")->buckets.empty());
    // The second writer tells all events from the first one on: those of one pick, and how many more there are.
    uint64_t newest = 0;
    for (size_t i = 0; i < snapshots.size(); ++i) {
      if (i > 0) CHECK(snapshots[i].time_ms >= snapshots[i - 1].time_ms);
      if (i == 3) newest = 0;
      CHECK_FALSE(snapshots[i].events.empty());
      CHECK(snapshots[i].events.back().number == newest + snapshots[i].events.size() + snapshots[i].events_left_out);
      newest = snapshots[i].events.back().number;
    }
  }
  std::ofstream(path) << "a letter";
  const auto refused = StatsLogWriter::open(device->library(), path.string());
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.failure().message.find("is not a log of snapshots") != std::string::npos);
  CHECK(std::filesystem::file_size(path) == 8);
  std::filesystem::remove(path);
  check_quiet(*device);
}
