// A log of snapshots as one page: tables, plots over time, events and the monitor's advice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "stats_log.hpp"
#include "stats_snapshot.hpp"

namespace kvant::tools {

// What the page is made of. Counters only grow, so that leaving snapshots out costs points of the curves and no count.
struct StatsHistory {
  std::string source;
  std::vector<Snapshot>
      snapshots;  // at most kKeptSnapshots, the first and the last among them; sequences of the last only
  std::vector<SnapshotEvent> events;  // at most kKeptEvents, see EventPick
  uint64_t event_count = 0;           // all that the log tells
  uint64_t events_left_out = 0;
  uint64_t lines = 0;
  bool half_line = false;
};
inline constexpr size_t kKeptSnapshots = 512;
inline constexpr size_t kKeptEvents = 40;

// Of the whole file; fails on a line that is not a snapshot, and where there is none.
Outcome<StatsHistory> read_history(const std::string& path);

std::string stats_html(const StatsHistory& history);

}  // namespace kvant::tools
