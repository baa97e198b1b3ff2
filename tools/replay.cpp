// kvant replay: eviction policies over a recorded or made-up trace, beside the best that is possible. Needs no device.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <sstream>

#include "commands.hpp"
#include "html_report.hpp"
#include "progress.hpp"
#include "replay_read.hpp"
#include "replay_report.hpp"

namespace kvant::tools {

namespace {

struct Options {
  std::string trace_path, format, generate, write_path;
  std::string policies = "lru,window,adaptive";
  std::string capacities = "1%,2%,5%,10%,20%,40%";
  uint32_t page_tokens = 512;
  uint32_t token_bytes = 36864;
  uint32_t ttl_seconds = 0;
  uint32_t sink_pages = 4;
  uint32_t seed = 1;
  uint32_t requests = 4000;
  ReportOutput output;
};

uint64_t page_bytes(const Options& options) { return uint64_t{options.page_tokens} * options.token_bytes; }

GenerateOptions generate_options(const Options& options) {
  return {*trace_kind_from_name(options.generate), options.seed, options.requests, options.page_tokens};
}

Outcome<Trace> load(const Options& options) {
  if (!options.generate.empty()) {
    return generate_trace(generate_options(options), page_bytes(options));
  }
  const TraceFormat format = options.format.empty()    ? trace_format_of(options.trace_path)
                             : options.format == "csv" ? TraceFormat::kCsv
                                                       : TraceFormat::kMooncake;
  return read_trace(options.trace_path, format, {options.page_tokens, page_bytes(options)});
}

Outcome<std::vector<std::string>> parse_policies(const std::string& text) {
  std::vector<std::string> names;
  std::istringstream words(text);
  const std::vector<std::string>& known = replay_policies();
  for (std::string name; std::getline(words, name, ',');) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return Failure{"policy (" + name + ") is none of none, lru, window and adaptive", Exit::kUsage};
    }
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  if (names.empty()) {
    return Failure{"policies () is empty: a list as lru,adaptive is needed", Exit::kUsage};
  }
  return names;
}

std::string command_text(const Options& options) {
  std::string text = "kvant replay ";
  if (options.generate.empty()) {
    text += options.trace_path;
  } else {
    text += "--generate " + options.generate + " --seed " + std::to_string(options.seed) + " --requests " +
            std::to_string(options.requests);
  }
  text += " --policies " + options.policies + " --capacity " + options.capacities + " --page-tokens " +
          std::to_string(options.page_tokens) + " --token-bytes " + std::to_string(options.token_bytes);
  if (options.ttl_seconds > 0) {
    text += " --ttl " + std::to_string(options.ttl_seconds);
  }
  return text + " --sinks " + std::to_string(options.sink_pages);
}

ReplayReport measure(const Options& options, const Trace& trace, const std::vector<std::string>& policies,
                     const std::vector<uint64_t>& capacities) {
  ReplayReport report;
  report.command = command_text(options);
  report.trace = trace.name;
  report.paths = trace.page_tokens > 0;
  report.exact = trace.page_bytes() > 0;
  report.requests = trace.requests.size();
  report.distinct_pages = trace.pages.size();
  report.distinct_bytes = trace.distinct_bytes();
  Progress progress((policies.size() + 1) * capacities.size() * trace.requests.size(), true);
  progress.phase("infinite");
  report.infinite = replay_infinite(trace);
  for (const uint64_t capacity : capacities) {
    const std::string at = ", " + bytes_text(static_cast<double>(capacity));
    progress.phase("optimum" + at);
    report.optimum.push_back({capacity, report.exact ? "optimum" : "bound",
                              report.exact ? replay_optimum(trace, capacity) : replay_bound(trace, capacity)});
    progress.advance(trace.requests.size());
    for (const std::string& policy : policies) {
      progress.phase(policy + at);
      const ReplayOptions one{policy, capacity, uint64_t{options.ttl_seconds} * 1000, options.sink_pages};
      report.rows.push_back({capacity, policy, replay(trace, one, [&] { progress.advance(); })});
    }
  }
  return report;
}

Outcome<void> write_generated(const Options& options) {
  const std::vector<PathRecord> records = generate_records(generate_options(options));
  return write_file(options.write_path, trace_format_of(options.write_path) == TraceFormat::kCsv
                                            ? csv_text(records, page_bytes(options))
                                            : mooncake_text(records));
}

Outcome<void> run(const Options& options) {
  KVANT_TRY(options.output.check());
  KVANT_TRY(check_output(options.write_path));
  if (options.trace_path.empty() == options.generate.empty()) {
    return Failure{"either a trace file or --generate is needed, and not both", Exit::kUsage};
  }
  if (!options.write_path.empty()) {
    if (options.generate.empty()) {
      return Failure{"--write (" + options.write_path + ") writes what --generate makes, and that is not given",
                     Exit::kUsage};
    }
    return write_generated(options);
  }
  const auto policies = parse_policies(options.policies);
  if (!policies.ok()) {
    return policies.failure();
  }
  const auto trace = load(options);
  if (!trace.ok()) {
    return trace.failure();
  }
  const auto capacities = parse_capacities(options.capacities, *trace);
  if (!capacities.ok()) {
    return capacities.failure();
  }
  const ReplayReport report = measure(options, *trace, *policies, *capacities);
  KVANT_TRY(options.output.write(report, replay_text, replay_json, replay_html));
  return {};
}

}  // namespace

void add_replay_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("replay", "eviction policies over a trace of requests, without a device");
  command->add_option("trace", options->trace_path,
                      "trace file: Mooncake's JSON lines, or libCacheSim's CSV (time,id,size)");
  command->add_option("--format", options->format, "mooncake or csv (default: by the end of the name)")
      ->check(CLI::IsMember({"mooncake", "csv"}));
  command
      ->add_option("--generate", options->generate, "make the trace: chat, agent, shared, or once (one-time documents)")
      ->check(CLI::IsMember(trace_kind_names()));
  command->add_option("--seed", options->seed, "of --generate")->capture_default_str();
  command->add_option("--requests", options->requests, "of --generate")->check(at_least(1))->capture_default_str();
  command->add_option("--write", options->write_path,
                      "write what --generate makes here (.csv: pages as objects) and stop");
  command->add_option("--policies", options->policies, "comma-separated: none, lru, window, adaptive")
      ->capture_default_str();
  command
      ->add_option("--capacity", options->capacities,
                   "comma-separated: shares of the trace's distinct bytes (5%), bytes (2GiB), or pages (1000)")
      ->capture_default_str();
  command
      ->add_option("--page-tokens", options->page_tokens, "tokens of a page: of Mooncake's blocks, and of --generate")
      ->check(at_least(1))
      ->capture_default_str();
  command
      ->add_option("--token-bytes", options->token_bytes,
                   "bytes that a token takes in all layers (the default: 32 layers, 8 KV heads of 128, q4_0)")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--ttl", options->ttl_seconds, "seconds without use after which a page expires (0: never)")
      ->check(at_least(0))
      ->capture_default_str();
  command
      ->add_option("--sinks", options->sink_pages, "first pages of a prefix that the policy window keeps to the last")
      ->check(at_least(0))
      ->capture_default_str();
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
