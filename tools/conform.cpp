// kvant conform: runs the conformance cases on a device, in worker processes, and reports. Links the core instead of loading
// the plugin, since cases run single kernels with forced configs (docs/decisions/0005).
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "conform_html.hpp"
#include "expectations.hpp"
#include "report.hpp"
#include "supervisor.hpp"
#include "support.hpp"

void add_conform_command(CLI::App& app);

namespace {

using namespace kvant::conformance;

struct Options {
  RunOptions run;
  std::vector<std::string> filters;
  bool list = false, support = false, in_process = false, resume = false, verbose = false;
  std::string subset = "full";
  std::string json, report, html, previous;
};

// "i/n", i from 0: the cases whose number is i modulo n.
bool parse_shard(const std::string& text, std::size_t* index, std::size_t* count) {
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) return false;
  const auto number = [](const std::string& part, std::size_t* out) {
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), *out);
    return parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
  };
  return number(text.substr(0, slash), index) && number(text.substr(slash + 1), count) && *index < *count;
}

std::vector<const Case*> select(const Options& options, std::size_t shard, std::size_t shards) {
  std::vector<const Case*> selected;
  std::size_t number = 0;
  const Subset most = options.subset == "smoke" ? Subset::smoke : options.subset == "quick" ? Subset::quick : Subset::full;
  for (const Case& c : all_cases()) {
    if (c.subset > most) continue;
    if (!options.filters.empty() &&
        std::none_of(options.filters.begin(), options.filters.end(), [&](const std::string& f) { return matches(f, c.name); }))
      continue;
    if (number++ % shards == shard) selected.push_back(&c);
  }
  return selected;
}

bool read_file(const std::string& path, std::string* text) {
  if (path.empty()) return true;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file) std::fprintf(stderr, "kvant conform: cannot read %s\n", path.c_str());
  *text = content.str();
  return static_cast<bool>(file);
}

bool write_file(const std::string& path, const std::string& text) {
  if (path.empty()) return true;
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.flush();
  if (!file) std::fprintf(stderr, "kvant conform: cannot write %s\n", path.c_str());
  return static_cast<bool>(file);
}

// A result is not to be lost for a path that cannot be written.
bool can_write(const std::string& path) {
  if (path.empty() || std::ofstream(path, std::ios::app)) return true;
  std::fprintf(stderr, "kvant conform: cannot write %s\n", path.c_str());
  return false;
}

// The README's: 2 the command line, 4 no usable device.
int exit_code(kvant::StatusCode error) {
  switch (error) {
    case kvant::StatusCode::invalid_argument:
    case kvant::StatusCode::not_found: return 2;
    case kvant::StatusCode::unavailable:
    case kvant::StatusCode::unimplemented: return 4;
    default: return 1;
  }
}

void print_progress(const CaseResult& result, std::size_t done, std::size_t total, bool verbose) {
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  const bool show = verbose || is_bad(result.status);
  if (show) {
    std::fprintf(stderr, "%s%-16s %s%s%s\n", terminal ? "\r\x1b[K" : "", std::string(status_name(result.status)).c_str(),
                 result.name.c_str(), result.message.empty() ? "" : "\n    ", result.message.c_str());
    if (is_bad(result.status) && !result.kernel.empty()) {
      std::string constants;
      for (const std::uint32_t value : result.spec) constants += " " + std::to_string(value);
      std::fprintf(stderr, "    module %s, constants%s\n", result.kernel.c_str(), constants.c_str());
    }
  }
  if (terminal) std::fprintf(stderr, "\r%zu of %zu", done, total);
  if (terminal && done == total) std::fprintf(stderr, "\r\x1b[K");
  if (!terminal && done % 500 == 0) std::fprintf(stderr, "%zu of %zu\n", done, total);
}

// What a case needs to run again as it ran here.
std::string repeat_options(const Options& options) {
  std::string text = " --seed " + std::to_string(options.run.seed);
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) text += std::string(" ") + name + " '" + value + "'";
  };
  add("--device", options.run.session.device);
  add("--capabilities", options.run.session.capability_override);
  add("--quirks", options.run.session.quirks);
  if (options.run.session.validation) text += " --validation";
  return text;
}

// Variables that choose or change the driver; of its manifests those that other machines have too.
std::string environment_prefix() {
  std::string text;
  for (const char* name : {"VK_ICD_FILENAMES", "LP_NATIVE_VECTOR_WIDTH", "KVANT_CAPABILITIES", "KVANT_QUIRKS"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == 0 || (std::string_view(name) == "VK_ICD_FILENAMES" && !std::string_view(value).starts_with("/usr/")))
      continue;
    text += std::string(name) + "='" + value + "' ";
  }
  return text;
}

std::string command_line(const Options& options) {
  std::string command = environment_prefix() + "kvant conform";
  for (const std::string& filter : options.filters) command += " --filter '" + filter + "'";
  if (options.subset != "full") command += " --subset " + options.subset;
  if (options.run.shard != "0/1") command += " --shard " + options.run.shard;
  return command + repeat_options(options);
}

// What the device lacks for the selected cases, by the predicates that the run itself uses; nothing is executed.
int print_support(const Options& options, const std::vector<const Case*>& cases) {
  auto session = Session::open(options.run.session);
  if (!session.ok()) {
    std::fprintf(stderr, "kvant conform: %s\n", session.status().message().c_str());
    return exit_code(session.status().code());
  }
  std::map<std::string, std::size_t> missing;
  for (const Case* c : cases)
    ++missing[session.value()->plan() == nullptr ? "" : missing_for(*c, *session.value()->plan())];
  for (const auto& [what, count] : missing) std::printf("%6zu  %s\n", count, what.empty() ? "supported" : what.c_str());
  return 0;
}

int run(const Options& options) {
  std::size_t shard = 0, shards = 1;
  if (!parse_shard(options.run.shard, &shard, &shards)) {
    std::fprintf(stderr, "kvant conform: shard '%s' is not I/N with I below N\n", options.run.shard.c_str());
    return 2;
  }
  const std::vector<const Case*> cases = select(options, shard, shards);
  if (options.list) {
    for (const Case* c : cases) std::printf("%s\n", c->name.c_str());
    std::fprintf(stderr, "%zu cases\n", cases.size());
    return 0;
  }
  if (cases.empty()) {
    std::fprintf(stderr, "kvant conform: no case matches\n");
    return 2;
  }
  if (options.support) return print_support(options, cases);
  std::string previous, earlier;
  if (!read_file(options.previous, &previous)) return 2;
  RunOptions run_options = options.run;
  if (options.resume && std::filesystem::exists(options.json)) {
    if (!read_file(options.json, &earlier)) return 2;
    run_options.earlier = parse_earlier_run(earlier);
  }
  for (const std::string* path : {&options.json, &options.report, &options.html})
    if (!can_write(*path)) return 2;
  // Lines are written as results come, so that a run that is cut short leaves what it found; the end puts them in order.
  std::ofstream lines;
  RunListener listener;
  listener.header = [&](const std::string& header) {
    if (options.json.empty()) return;
    lines.open(options.json, std::ios::binary);
    lines << header << std::endl;
    for (const auto& [name, result] : run_options.earlier.results) lines << to_json_line(result) << '\n';
    if (run_options.earlier.messages != 0) lines << messages_json(run_options.earlier.messages) << '\n';
    lines.flush();
  };
  listener.messages = [&](std::uint64_t count) {
    if (lines.is_open()) lines << messages_json(count) << std::endl;
  };
  listener.result = [&](const CaseResult& result, std::size_t done) {
    if (lines.is_open()) lines << to_json_line(result) << std::endl;
    print_progress(result, done, cases.size(), options.verbose);
  };
  const RunSummary summary = options.in_process ? run_cases_in_process(cases, run_options, listener)
                                                : run_cases(cases, run_options, listener);
  lines.close();
  const bool refused = summary.error_code == kvant::StatusCode::invalid_argument;  // then no result is this run's
  if (!summary.results.empty() && !refused) std::printf("%s", summary_table(summary).c_str());
  if (!summary.error.empty()) std::fprintf(stderr, "kvant conform: %s\n", summary.error.c_str());
  if (!summary.error.empty() && (refused || !run_options.earlier.header.empty())) return exit_code(summary.error_code);  // earlier results stay
  const ReportPage page = build_report(summary, {command_line(options), repeat_options(options), environment_prefix(), previous});
  const bool written = write_file(options.json, json_lines(summary)) && write_file(options.report, markdown(page)) &&
                       write_file(options.html, kvant::tools::conform_html(page));
  return summary.good() && written ? 0 : exit_code(summary.error_code);
}

}  // namespace

void add_conform_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  options->run.jobs = std::max(1u, std::min(4u, std::thread::hardware_concurrency()));
  CLI::App* command = app.add_subcommand("conform", "run the conformance cases on a device");
  command->add_flag("--list", options->list, "print the names of the selected cases and stop");
  command->add_flag("--support", options->support, "print what this device lacks for the selected cases and stop");
  command->add_option("--filter", options->filters, "only cases whose name matches (* and ?); may be repeated");
  command->add_option("--subset", options->subset, "smoke, quick or full: how much of the list")
      ->check(CLI::IsMember({"smoke", "quick", "full"}))
      ->capture_default_str();
  command->add_option("--shard", options->run.shard, "I/N: the I-th of N parts of the list")->capture_default_str();
  command->add_option("--seed", options->run.seed, "seed of all inputs")->capture_default_str();
  command->add_option("--device", options->run.session.device, "device index, or 'cpu' for the reference itself; default: the best");
  command->add_option("--capabilities", options->run.session.capability_override, "JSON that narrows the device");
  command->add_option("--quirks", options->run.session.quirks, "quirks forced by name: +name,-name");
  command->add_flag("--validation", options->run.session.validation,
                    "validation and synchronization layers; any message fails (also: KVANT_VALIDATION=1)");
  command->add_option("--expectations", options->run.expectations, "folder of expectation files, one per driver");
  command->add_option("--jobs", options->run.jobs, "worker processes")->check(CLI::Range(1, 256))->capture_default_str();
  command->add_option("--timeout", options->run.timeout_seconds, "seconds that one case may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--fail-fast", options->run.fail_fast, "stop at the first bad result");
  CLI::Option* in_process = command->add_flag("--in-process", options->in_process, "no worker processes: for debuggers");
  CLI::Option* json = command->add_option("--json", options->json, "write JSON Lines to this file");
  command->add_flag("--resume", options->resume, "go on from what the file of --json holds, if that is the same run")
      ->needs(json)
      ->excludes(in_process);
  command->add_option("--report", options->report, "write a Markdown report to this file");
  command->add_option("--html", options->html, "write the same report as one HTML page to this file");
  command->add_option("--previous", options->previous, "JSON Lines of an earlier run to compare with in the report");
  command->add_flag("--verbose", options->verbose, "print every case");
  command->callback([options] {
    const char* validation = std::getenv("KVANT_VALIDATION");
    if (validation != nullptr && std::string(validation) == "1") options->run.session.validation = true;
    if (const int code = run(*options); code != 0) throw CLI::RuntimeError(code);
  });
}
