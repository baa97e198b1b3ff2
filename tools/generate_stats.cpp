// kvant generate --stats-log: when a line is written, and what the lines cost.
#include "generate_stats.hpp"

#include "clock.hpp"
#include "commands.hpp"

namespace kvant::tools {

void add_generate_stats_options(CLI::App& command, GenerateStatsOptions& options) {
  CLI::Option* log = command.add_option("--stats-log", options.path,
                                        "append snapshots of the cache to this file, for `kvant top` and `kvant report`");
  command.add_option("--stats-every", options.every, "tokens from one snapshot to the next")
      ->check(at_least(1))
      ->needs(log)
      ->capture_default_str();
}

Outcome<std::unique_ptr<GenerateStats>> GenerateStats::open(const GenerateStatsOptions& options, Cache& cache) {
  std::unique_ptr<GenerateStats> stats(new GenerateStats(options, cache));
  const auto& library = cache.device()->library();
  auto writer = StatsLogWriter::open(library, options.path);
  if (!writer.ok()) {
    return writer.failure();
  }
  stats->writer_ = std::move(*writer);
  KVANT_TRY(library->check(library->manager()->stats_sample_errors(cache.handle(), options.every)));
  return stats;
}

void GenerateStats::mark() {
  tokens_ = 0;
  if (outcome_.ok()) {
    const Stopwatch watch;
    outcome_ = writer_->write(cache_.handle());
    seconds_ += watch.seconds();
  }
}

void GenerateStats::token() {
  if (++tokens_ >= options_.every) {
    mark();
  }
}

Outcome<void> GenerateStats::finish() {
  if (tokens_ > 0) {
    mark();
  }
  return outcome_;
}

void GenerateStats::describe(Table& table) const {
  table.add({"snapshots", std::to_string(writer_->lines()) + " in " + options_.path + ", " +
                              significant(seconds_ * 1e3) + " ms to write them"});
}

}  // namespace kvant::tools
