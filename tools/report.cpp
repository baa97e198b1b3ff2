// kvant report: a log of snapshots as one page.
#include <cstdio>

#include "commands.hpp"
#include "html_report.hpp"
#include "stats_report.hpp"

namespace kvant::tools {

namespace {

struct ReportOptions {
  std::string log;
  std::string output;
};

Outcome<void> run(const ReportOptions& options) {
  KVANT_TRY(check_output(options.output));
  const auto history = read_history(options.log);
  if (!history.ok()) {
    return history.failure();
  }
  KVANT_TRY(write_file(options.output, stats_html(*history)));
  if (options.output != "-") {
    std::printf("%s: %llu snapshots of %s\n", options.output.c_str(), static_cast<unsigned long long>(history->lines),
                options.log.c_str());
  }
  return {};
}

}  // namespace

void add_report_command(CLI::App& app) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* command = app.add_subcommand("report", "a log of a cache's snapshots as one HTML page with plots");
  command->add_option("log", options->log, "JSON Lines that an engine wrote (docs/monitoring.md)")->required();
  command->add_option("-o,--output", options->output, "page to write, - for standard output")->required();
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
