// Snapshots of a running cache as JSON Lines: an engine appends them, `kvant top` and `kvant report` read them, from
// another process if need be. The format stands in docs/monitoring.md.
#pragma once

#include <kvant/kvant_ext_manager.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#include "library.hpp"
#include "outcome.hpp"

namespace kvant::tools {

// A longer line is refused: nothing that a cache says of itself comes near it.
inline constexpr uint64_t kStatsLineBytes = uint64_t{16} << 20;

// Appends to a file. One writer a file; the cache's calls come from the thread that calls write().
class StatsLogWriter {
 public:
  // Begins a new file, or goes on behind what is there.
  static Outcome<std::unique_ptr<StatsLogWriter>> open(std::shared_ptr<Library> library, const std::string& path);
  ~StatsLogWriter();
  StatsLogWriter(const StatsLogWriter&) = delete;
  StatsLogWriter& operator=(const StatsLogWriter&) = delete;

  // A snapshot for the cache's monitor, and one line, in the file when this returns. Always of the same cache.
  Outcome<void> write(kvant_cache* cache);
  uint64_t lines() const { return lines_; }

 private:
  StatsLogWriter() = default;
  Outcome<std::string> text(kvant_cache* cache, uint32_t kind) const;
  Outcome<std::string> events(kvant_cache* cache);

  std::shared_ptr<Library> library_;
  const kvant_ext_manager* manager_ = nullptr;
  std::string path_;
  std::FILE* file_ = nullptr;
  uint64_t lines_ = 0;
  uint64_t last_event_ = 0;
};

// Reads a file that somebody else may be appending to. A line counts when its newline is there.
class StatsLogReader {
 public:
  static Outcome<std::unique_ptr<StatsLogReader>> open(const std::string& path);
  ~StatsLogReader();
  StatsLogReader(const StatsLogReader&) = delete;
  StatsLogReader& operator=(const StatsLogReader&) = delete;

  // Hands the whole lines over that came since the last call, empty ones left out, with their numbers from 1 on, until
  // `take` fails. A file that became shorter is read again from its beginning.
  using Take = std::function<Outcome<void>(const std::string& line, uint64_t number)>;
  Outcome<void> read(const Take& take);

  // Whether the file ends with a line that has no newline yet.
  bool half_line() const { return !pending_.empty(); }
  // "FILE:LINE: what", of a line of this file.
  Failure at(uint64_t number, const Failure& failure) const;

 private:
  StatsLogReader() = default;

  std::string path_;
  std::FILE* file_ = nullptr;
  uint64_t offset_ = 0;  // bytes read
  uint64_t number_ = 0;  // whole lines read
  std::string pending_;
};

}  // namespace kvant::tools
