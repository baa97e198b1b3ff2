// kvant bench quantize, dequantize, decode, prefill: rounds over all cases, so that a slow moment hits each alike.
#include "bench.hpp"

#include <algorithm>
#include <cstdio>

#include "clock.hpp"
#include "html_report.hpp"
#include "progress.hpp"

namespace kvant::tools {

double median(std::vector<double> values) {
  if (values.empty()) {
    return 0;
  }
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

namespace {

using CaseMaker = Outcome<BenchCase> (*)(const std::shared_ptr<Device>&, const FormatPair&, const BenchShape&);

constexpr uint64_t kCopyBytes = uint64_t{64} << 20;

double profile_seconds(Device& device) {
  double microseconds = 0;
  for (const ProfileEntry& entry : device.take_profile()) {
    microseconds += entry.microseconds;
  }
  return microseconds * 1e-6;
}

}  // namespace

Outcome<void> sample(Device& device, const BenchCase& one, BenchSamples& samples) {
  device.take_profile();
  const Stopwatch watch;
  for (uint32_t i = 0; i < samples.repetitions; ++i) {
    KVANT_TRY(one.repeat());
  }
  samples.wall.push_back(watch.seconds() / samples.repetitions);
  samples.device.push_back(profile_seconds(device) / samples.repetitions);
  return {};
}

BenchResult result_of(const BenchCase& one, const BenchSamples& samples) {
  const auto [least, most] = std::minmax_element(samples.wall.begin(), samples.wall.end());
  const double wall = median(samples.wall);
  return {one.format, one.shape, wall, (*most - *least) / wall, median(samples.device), one.device_bytes, one.flops, one.held_bits};
}

Outcome<void> warm_up(const BenchCase& one, double least_seconds, BenchSamples& samples) {
  KVANT_TRY(one.repeat());
  const Stopwatch watch;
  KVANT_TRY(one.repeat());
  samples.repetitions = static_cast<uint32_t>(std::clamp(least_seconds / std::max(watch.seconds(), 1e-6), 1.0, 1000.0));
  return {};
}

namespace {

Outcome<void> measure(const std::shared_ptr<Device>& device, const std::vector<BenchCase>& cases,
                      const BenchOptions& options, BenchReport& report) {
  Progress progress((options.rounds + 1) * cases.size(), true);
  std::vector<BenchSamples> samples(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    progress.phase("warm-up: " + cases[i].format + ", " + cases[i].shape);
    KVANT_TRY(warm_up(cases[i], options.least_seconds, samples[i]));
    progress.advance();
  }
  std::vector<double> copies;
  for (uint32_t round = 0; round < options.rounds; ++round) {
    progress.phase("round " + std::to_string(round + 1) + " of " + std::to_string(options.rounds));
    const auto copy = device->measure_copy(kCopyBytes);
    if (!copy.ok()) {
      return copy.failure();
    }
    copies.push_back(*copy);
    for (size_t i = 0; i < cases.size(); ++i) {
      KVANT_TRY(sample(*device, cases[i], samples[i]));
      progress.advance();
    }
  }
  report.copy_bytes_per_second = median(copies);
  for (size_t i = 0; i < cases.size(); ++i) {
    report.results.push_back(result_of(cases[i], samples[i]));
  }
  return {};
}

Outcome<void> run(const std::string& what, CaseMaker make, const BenchOptions& options) {
  KVANT_TRY(options.output.check());
  HostOptions host = options.host;
  host.device.profiling = true;
  auto opened = open_device(host);
  if (!opened.ok()) {
    return opened.failure();
  }
  const auto pairs = parse_pairs(*(*opened)->library(), options.formats);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  const auto head_dims = parse_counts("head dimension", options.head_dims);
  if (!head_dims.ok()) {
    return head_dims.failure();
  }
  const auto token_counts = parse_counts("token count", options.tokens);
  if (!token_counts.ok()) {
    return token_counts.failure();
  }
  const auto shared_counts = parse_counts("count of shared tokens", options.shared, 0);
  if (!shared_counts.ok()) {
    return shared_counts.failure();
  }
  for (const uint32_t shared : *shared_counts) {
    const uint32_t shortest = *std::min_element(token_counts->begin(), token_counts->end());
    if (shared >= shortest) {
      return Failure{"--shared (" + std::to_string(shared) + ") leaves a sequence of " + std::to_string(shortest) + " tokens none of its own",
                     Exit::kUsage};
    }
  }
  BenchReport report;
  report.what = what;
  report.device = (*opened)->facts();
  report.commit = (*opened)->library()->commit();
  report.rounds = options.rounds;
  std::vector<BenchCase> cases;
  for (const uint32_t head_dim : *head_dims) {
    for (const uint32_t tokens : *token_counts) {
      for (const FormatPair& pair : *pairs) {
        for (const uint32_t shared : *shared_counts) {
          BenchShape shape{head_dim, options.kv_heads, options.group, tokens, options.batch};
          shape.shared = shared;
          auto one = make(*opened, pair, shape);
          if (!one.ok()) {
            return one.failure();
          }
          cases.push_back(std::move(*one));
        }
      }
    }
  }
  KVANT_TRY(measure(*opened, cases, options, report));
  KVANT_TRY(options.output.write(report, bench_text, bench_json, bench_html));
  return {};
}

void add_case_command(CLI::App& bench, const std::string& name, const std::string& text, CaseMaker make,
                      const std::string& default_tokens) {
  auto options = std::make_shared<BenchOptions>();
  options->tokens = default_tokens;
  CLI::App* command = bench.add_subcommand(name, text);
  add_host_options(*command, options->host);
  command->add_option("--formats", options->formats, kFormatsHelp)->capture_default_str();
  command->add_option("--head-dim", options->head_dims, "head dimensions, comma-separated")->capture_default_str();
  command->add_option("--tokens", options->tokens, "tokens of each sequence, comma-separated")->capture_default_str();
  command->add_option("--kv-heads", options->kv_heads, "KV heads")->check(at_least(1))->capture_default_str();
  command->add_option("--gqa", options->group, "query heads that share a KV head")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--batch", options->batch, "sequences")->check(at_least(1))->capture_default_str();
  command->add_option("--rounds", options->rounds, "interleaved rounds; medians are printed")
      ->check(at_least(1))
      ->capture_default_str();
  if (make == decode_case) {
    command->add_option("--shared", options->shared, "first tokens that all sequences share, comma-separated; 0: none")->capture_default_str();
  }
  options->output.add_options(*command);
  command->callback([name, make, options] { finish(run(name, make, *options)); });
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "speed of the device work and of generation");
  command->require_subcommand(1);
  add_case_command(*command, "quantize", "floats to canonical bytes", quantize_case, "4096");
  add_case_command(*command, "dequantize", "canonical bytes to floats", dequantize_case, "4096");
  add_case_command(*command, "decode", "attention of one query a sequence over the cache", decode_case, "4096");
  add_case_command(*command, "prefill", "append and causal attention of a whole prompt", prefill_case, "1024");
  add_bench_generate_command(*command);
  add_bench_reuse_command(*command);
  add_bench_mass_command(*command);
  add_bench_step_command(*command);
  add_bench_scaling_command(*command);
  add_bench_start_command(*command);
}

}  // namespace kvant::tools
