// Snapshots as text: the screen of `kvant top`, and the tables that it shares with `kvant report`.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "stats_snapshot.hpp"
#include "table.hpp"

namespace kvant::tools {

struct ScreenOptions {
  size_t width = 100;               // columns; what is longer is cut off
  size_t height = 0;                // lines; 0: as many as there are
  bool colour = false;              // ANSI colours
  std::optional<uint64_t> unix_ms;  // now: the snapshot's age is shown
};

// The state of `now`, with rates since `before` (may be null). `source` names where it comes from.
std::string stats_screen(const std::string& source, const Snapshot* before, const Snapshot& now,
                         const ScreenOptions& options);

// ANSI escapes take no columns; UTF-8 characters take one.
std::string cut_to_width(const std::string& line, size_t width);

// Layers of equal formats that follow each other are one row.
Table layer_table(const Snapshot& now);
Table tier_table(const Snapshot& now);
// Operations that have not been used are left out. With an interval, its figures stand beside those since the
// beginning.
Table latency_table(const Snapshot& now, const std::optional<SnapshotInterval>& interval);
// The `most` largest, and a row for the rest.
Table sequence_table(const Snapshot& now, size_t most);

std::string duration_text(double seconds);              // "1.25 ms"
std::string utc_text(uint64_t unix_ms);                 // "2026-03-01 12:00:05 UTC"
std::string policy_text(const Snapshot& now);           // "policy lru", "no prefix cache"
std::string share_text(uint64_t part, uint64_t whole);  // "71.4 %", "-" of nothing
std::string lookups_text(const SnapshotLookups& lookups);
// ↗ improving, → stable, ↘ degrading, · not known: of the trend, whichever way its metric went.
std::string arrow_of(const SnapshotTrend& trend);
// What counts as no change stands behind a trend's semicolon.
std::string first_clause(const std::string& text);

}  // namespace kvant::tools
