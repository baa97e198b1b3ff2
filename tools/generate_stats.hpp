// What --stats-log adds to kvant generate: a line of statistics every so many tokens, for `kvant top` and `kvant report`.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <memory>
#include <string>

#include "library.hpp"
#include "outcome.hpp"
#include "stats_log.hpp"
#include "table.hpp"

namespace kvant::tools {

struct GenerateStatsOptions {
  std::string path;  // empty: none
  uint32_t every = 16;
};
void add_generate_stats_options(CLI::App& command, GenerateStatsOptions& options);

// The log of one run. A log that cannot be written any more does not end the text: finish() tells.
class GenerateStats {
 public:
  // `cache` must outlive this. Errors are sampled from here on, one token in `every`.
  static Outcome<std::unique_ptr<GenerateStats>> open(const GenerateStatsOptions& options, Cache& cache);

  // A line at once: where a phase begins or ends.
  void mark();
  // After each token of the text.
  void token();
  // A last line. The first failure of any.
  Outcome<void> finish();
  void describe(Table& table) const;

 private:
  GenerateStats(const GenerateStatsOptions& options, Cache& cache) : options_(options), cache_(cache) {}

  GenerateStatsOptions options_;
  Cache& cache_;
  std::unique_ptr<StatsLogWriter> writer_;
  Outcome<void> outcome_;  // of the lines so far
  uint64_t tokens_ = 0;    // since the latest line
  double seconds_ = 0;     // that writing them took
};

}  // namespace kvant::tools
