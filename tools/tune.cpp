// kvant tune: measures the configs that can run an attention call and writes the quickest where the library finds it. Each candidate runs through
// the same calls as an engine's, on a device of its own that was told of this candidate alone.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "bench.hpp"
#include "clock.hpp"
#include "html_report.hpp"
#include "progress.hpp"
#include "tune_device.hpp"
#include "tune_report.hpp"

namespace kvant::tools {

namespace {

constexpr double kLeastGain = 0.05;  // of the default's time: less is noise, and no reason to leave what is tested most

struct TuneOptions {
  HostOptions host;
  std::string formats = "f16,q8_0,q4_0,t4";
  std::string head_dims = "128";
  std::string queries = "1,4,64";
  uint32_t kv_heads = 8;
  uint32_t group = 4;
  uint32_t tokens = 4096;
  uint32_t rounds = 7;
  double minutes = 10;
  std::string out;
  ReportOutput output;
};

// A candidate with its device and its samples.
struct Running {
  size_t candidate = 0;
  std::shared_ptr<Device> device;
  BenchCase work;
  BenchSamples samples;

  double seconds() const {
    const double device_seconds = median(samples.device);
    return device_seconds > 0 ? device_seconds : median(samples.wall);
  }
};

// The file that tells the library of one candidate, taken away in the end, and the environment that names it.
class CandidateFile {
 public:
  CandidateFile() : path_((std::filesystem::temp_directory_path() / ("kvant-tune-" + std::to_string(getpid()) + ".json")).string()) {
    setenv("KVANT_TUNED", path_.c_str(), 1);
  }
  ~CandidateFile() {
    unsetenv("KVANT_TUNED");
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  CandidateFile(const CandidateFile&) = delete;
  CandidateFile& operator=(const CandidateFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Tuner {
 public:
  Tuner(const TuneOptions& options, std::shared_ptr<Library> library, TuneDevice& device)
      : options_(options), library_(std::move(library)), device_(device) {}

  Outcome<TuneResult> tune(const FormatPair& pair, uint32_t head_dim, uint32_t queries) {
    TuneCall call{pair.k.id, pair.v.id, head_dim, options_.kv_heads, options_.group, 16, options_.tokens, queries};
    TuneResult result;
    result.call = pair.name() + ", d " + std::to_string(head_dim) + ", GQA " + std::to_string(options_.group) + ", " + std::to_string(queries) +
                  (queries == 1 ? " query" : " queries");
    const BenchShape shape{head_dim, options_.kv_heads, options_.group, options_.tokens, 1, false, queries};
    std::vector<Running> field;
    const size_t count = device_.list(call);
    for (size_t i = 0; i < count; ++i) KVANT_TRY(enter(i, pair, shape, field, result));
    KVANT_TRY(narrow(field));
    // The best one again with items of other lengths.
    for (const size_t i : device_.vary(field.front().candidate)) KVANT_TRY(enter(i, pair, shape, field, result));
    KVANT_TRY(narrow(field));
    Running& best = field.front();
    const auto chosen = std::find_if(field.begin(), field.end(), [](const Running& one) { return one.candidate == 0; });
    result.chosen = device_.name(0);
    result.chosen_seconds = chosen->seconds();
    const bool better = best.seconds() < (1 - kLeastGain) * chosen->seconds();
    const size_t winner = better ? best.candidate : 0;
    result.best = device_.name(winner);
    result.best_seconds = better ? best.seconds() : result.chosen_seconds;
    if (better)
      device_.keep(winner, 1e6 * result.best_seconds, 1e6 * result.chosen_seconds);
    else if (result.complete)
      device_.leave();
    return result;
  }

 private:
  bool late() const { return watch_.seconds() > 60 * options_.minutes; }

  // Candidate 0 always runs: everything is compared with it. Another one may fail.
  Outcome<void> enter(size_t candidate, const FormatPair& pair, const BenchShape& shape, std::vector<Running>& field, TuneResult& result) {
    auto entered = try_candidate(candidate, pair, shape, field, result);
    if (entered.ok() || candidate == 0) return entered;
    ++result.skipped;
    return {};
  }

  Outcome<void> try_candidate(size_t candidate, const FormatPair& pair, const BenchShape& shape, std::vector<Running>& field, TuneResult& result) {
    if (candidate != 0 && late()) {
      result.complete = false;
      return {};
    }
    const std::string failed = device_.write_alone(candidate, file_.path());
    if (!failed.empty()) return Failure{failed};
    DeviceOptions device = options_.host.device;
    device.profiling = true;
    auto opened = Device::open(library_, device);
    if (!opened.ok()) return opened.failure();
    auto work = attend_case(*opened, pair, shape);
    if (!work.ok()) return work.failure();
    Running one{candidate, *opened, std::move(*work), {}};
    KVANT_TRY(warm_up(one.work, 0.02, one.samples));
    field.push_back(std::move(one));
    ++result.candidates;
    return {};
  }

  // Rounds over all, after which the slower half goes, until few are left; then the rounds that the figures come from. Candidate 0 stays. In the
  // end the quickest is first.
  Outcome<void> narrow(std::vector<Running>& field) {
    while (field.size() > 3 && !late()) {
      KVANT_TRY(rounds(field, 3));
      const auto keep = static_cast<std::ptrdiff_t>((field.size() + 1) / 2);
      const auto standing = std::find_if(field.begin() + keep, field.end(), [](const Running& one) { return one.candidate == 0; });
      if (standing != field.end()) std::iter_swap(field.begin() + keep - 1, standing);
      field.erase(field.begin() + keep, field.end());
    }
    return rounds(field, options_.rounds);
  }

  static Outcome<void> rounds(std::vector<Running>& field, uint32_t count) {
    for (Running& one : field) one.samples.wall.clear(), one.samples.device.clear();
    for (uint32_t i = 0; i < count; ++i)
      for (Running& one : field) KVANT_TRY(sample(*one.device, one.work, one.samples));
    std::stable_sort(field.begin(), field.end(), [](const Running& a, const Running& b) { return a.seconds() < b.seconds(); });
    return {};
  }

  const TuneOptions& options_;
  std::shared_ptr<Library> library_;
  TuneDevice& device_;
  CandidateFile file_;
  Stopwatch watch_;
};

Outcome<void> run(const TuneOptions& options) {
  KVANT_TRY(options.output.check());
  if (options.out.empty() && options.host.device.pipeline_cache_folder.empty())
    return Failure{"--out FILE or --pipeline-cache FOLDER says where the result goes", Exit::kUsage};
  auto opened = open_device(options.host);
  if (!opened.ok()) return opened.failure();
  const auto pairs = parse_pairs(*(*opened)->library(), options.formats);
  if (!pairs.ok()) return pairs.failure();
  for (const FormatPair& pair : *pairs)
    if (pair.transform_k != 0 || pair.transform_v != 0 || pair.protect != 0 || !pair.by_layer.empty())
      return Failure{"--formats names " + pair.name() + "; configs are kept by formats alone, so that it takes plain ones and pairs of them", Exit::kUsage};
  const auto head_dims = parse_counts("head dimension", options.head_dims);
  if (!head_dims.ok()) return head_dims.failure();
  const auto queries = parse_counts("query count", options.queries);
  if (!queries.ok()) return queries.failure();
  std::string reason;
  const DeviceOptions& device = options.host.device;
  const std::unique_ptr<TuneDevice> inside = TuneDevice::open(device.index, device.capabilities, device.quirks, reason);
  if (inside == nullptr) return Failure{reason, Exit::kNoDevice};
  kvant_build_info build{};
  build.struct_size = sizeof build;
  KVANT_TRY((*opened)->check((*opened)->api().get_build_info(&build)));
  if (build.shader_set != TuneDevice::shader_set())
    return Failure{std::string("the library has the shaders ") + build.shader_set + ", this program " + TuneDevice::shader_set() + ": it would not take what is measured",
                   Exit::kUsage};
  if (options.out.empty() && !(device.capabilities.empty() && device.quirks.empty()))
    return Failure{"--capabilities or --quirks make another device of this one, whose file is not the one in --pipeline-cache: --out FILE says where the result goes", Exit::kUsage};
  const std::string path = options.out.empty() ? inside->path_in(device.pipeline_cache_folder) : options.out;

  Tuner tuner(options, (*opened)->library(), *inside);
  TuneReport report;
  report.device = device_text(**opened);
  report.driver = (*opened)->facts().driver;
  report.commit = (*opened)->library()->commit();
  report.rounds = options.rounds;
  report.tokens = options.tokens;
  report.path = path;
  Progress progress(pairs->size() * head_dims->size() * queries->size(), true);
  for (const uint32_t head_dim : *head_dims)
    for (const uint32_t count : *queries)
      for (const FormatPair& pair : *pairs) {
        progress.phase(pair.name() + ", d " + std::to_string(head_dim) + ", queries " + std::to_string(count));
        auto result = tuner.tune(pair, head_dim, count);
        if (!result.ok()) return result.failure();
        report.results.push_back(std::move(*result));
        // A long run that is stopped has not been for nothing.
        const std::string failed = inside->save(path);
        if (!failed.empty()) return Failure{failed};
        progress.advance();
      }
  KVANT_TRY(options.output.write(report, tune_text, tune_json, tune_html));
  return {};
}

}  // namespace

void add_tune_command(CLI::App& app) {
  auto options = std::make_shared<TuneOptions>();
  CLI::App* command = app.add_subcommand("tune", "measures the configs of attention on a device and keeps the quickest for the library");
  add_host_options(*command, options->host);
  command->add_option("--formats", options->formats, kFormatsHelp)->capture_default_str();
  command->add_option("--head-dim", options->head_dims, "head dimensions, comma-separated")->capture_default_str();
  command->add_option("--queries", options->queries, "queries of a sequence in one call, comma-separated: 1 stands for one, 2 to 8 for few, more for many")
      ->capture_default_str();
  command->add_option("--kv-heads", options->kv_heads, "KV heads")->check(at_least(1))->capture_default_str();
  command->add_option("--gqa", options->group, "query heads that share a KV head")->check(at_least(1))->capture_default_str();
  command->add_option("--tokens", options->tokens, "tokens in the cache")->check(at_least(1))->capture_default_str();
  command->add_option("--rounds", options->rounds, "interleaved rounds that the figures come from")->check(at_least(1))->capture_default_str();
  command->add_option("--minutes", options->minutes, "no new candidate is begun after so long")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--out", options->out, "file to write; else the device's file in the folder of --pipeline-cache");
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
