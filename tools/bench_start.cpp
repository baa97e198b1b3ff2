// kvant bench start: from a process without anything to the first and the second token, with and without compiled code on disk.
#include <nlohmann/json.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "bench.hpp"
#include "clock.hpp"
#include "html_report.hpp"
#include "progress.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

struct StartOptions {
  HostOptions host;
  std::string formats = "q4_0";
  uint32_t layers = 4;
  uint32_t tokens = 512;
  uint32_t kv_heads = 8;
  uint32_t group = 4;
  uint32_t head_dim = 128;
  double load_seconds = 0;
  uint32_t rounds = 3;
  ReportOutput output;
};

// What a process finds on disk: of the library's pipeline cache, and of the driver's own.
struct Kept {
  const char* name;
  bool library, driver;
};
constexpr std::array<Kept, 4> kKept{{{"nothing", false, false}, {"the library's pipelines", true, false}, {"the driver's cache", false, true}, {"both", true, true}}};

// Seconds of a process's life, one after the other.
struct StartCost {
  double open = 0;    // library, device
  double first = 0;   // cache, prompt through all layers
  double second = 0;  // the next token
};

// A step of one sequence through all layers.
Outcome<void> feed(Cache& cache, kvant_sequence sequence, const StartOptions& options, uint32_t tokens) {
  const size_t row = size_t{options.kv_heads} * options.head_dim;
  const std::vector<float> rows(tokens * row * options.group, 0.5F);
  std::vector<float> out(rows.size());
  kvant_step_entry entry{};
  entry.struct_size = sizeof(entry);
  entry.sequence = sequence;
  entry.append = tokens;
  entry.queries = tokens;
  kvant_step_args args{};
  args.struct_size = sizeof(args);
  args.entry_count = 1;
  args.entries = &entry;
  const kvant_tensor kv = float_tensor(rows.data(), tokens * row), q = float_tensor(rows.data(), rows.size());
  const kvant_tensor out_tensor = float_tensor(out.data(), out.size());
  kvant_run_args run{};
  run.struct_size = sizeof(run);
  run.k = run.v = &kv;
  run.q = &q;
  run.out = &out_tensor;
  run.q_heads = options.kv_heads * options.group;
  kvant_step* planned = nullptr;
  KVANT_TRY(cache.check(cache.api().step_plan(cache.handle(), &args, &planned)));
  for (uint32_t layer = 0; layer < options.layers; ++layer) {
    const auto ran = cache.check(cache.api().step_run(planned, layer, &run));
    if (!ran.ok()) {
      cache.api().step_abort(planned);
      return ran;
    }
  }
  return cache.check(cache.api().step_commit(planned));
}

// What the child process does; its report is `record`.
Outcome<void> live(const StartOptions& options, const std::string& folder, Json& record) {
  Stopwatch watch;
  HostOptions host = options.host;
  host.device.pipeline_cache_folder = folder;
  const auto device = open_device(host);
  if (!device.ok()) {
    return device.failure();
  }
  record["open"] = watch.seconds();
  std::this_thread::sleep_for(std::chrono::duration<double>(options.load_seconds));
  watch.restart();
  const auto pairs = parse_pairs(*(*device)->library(), options.formats);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  if (pairs->size() != 1) {
    return Failure{"--formats (" + options.formats + ") names " + std::to_string(pairs->size()) + " pairs, expected one", Exit::kUsage};
  }
  const auto cache = Cache::create(*device, cache_shape(pairs->front(), options.layers, options.kv_heads, options.head_dim, options.tokens + 16));
  if (!cache.ok()) {
    return cache.failure();
  }
  const auto sequence = (*cache)->create_sequence();
  if (!sequence.ok()) {
    return sequence.failure();
  }
  KVANT_TRY(feed(**cache, *sequence, options, options.tokens));
  record["first"] = watch.seconds();
  watch.restart();
  KVANT_TRY(feed(**cache, *sequence, options, 1));
  record["second"] = watch.seconds();
  record["device"] = (*device)->facts().name;
  record["driver"] = (*device)->facts().driver;
  record["commit"] = (*device)->library()->commit();
  return {};
}

// Runs live() in a process of its own: drivers keep compiled code in the process too. This one has not opened the library yet.
Outcome<Json> live_apart(const StartOptions& options, const std::string& folder, const std::string& driver_folder) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) {
    return Failure{"no pipe can be made", Exit::kFailed};
  }
  const pid_t child = ::fork();
  if (child < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    return Failure{"no process can be made", Exit::kFailed};
  }
  if (child == 0) {
    ::close(ends[0]);
    // Where Mesa, NVIDIA and what follows the XDG folders keep compiled code.
    for (const char* name : {"MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH", "XDG_CACHE_HOME"}) {
      ::setenv(name, driver_folder.c_str(), 1);
    }
    Json record;
    const auto lived = live(options, folder, record);
    if (!lived.ok()) {
      record = {{"failure", lived.failure().message}, {"exit", static_cast<int>(lived.failure().exit)}};
    }
    const std::string text = record.dump();
    size_t written = 0;
    while (written < text.size()) {
      const ssize_t count = ::write(ends[1], text.data() + written, text.size() - written);
      if (count <= 0) {
        break;
      }
      written += static_cast<size_t>(count);
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> piece{};
  for (ssize_t count = 0; (count = ::read(ends[0], piece.data(), piece.size())) > 0;) {
    text.append(piece.data(), static_cast<size_t>(count));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  Json record = Json::parse(text, nullptr, false);
  if (record.is_discarded() || status != 0) {
    return Failure{"the measured process ended with status " + std::to_string(status) + " before its report", Exit::kFailed};
  }
  if (record.contains("failure")) {
    return Failure{record["failure"].get<std::string>(), static_cast<Exit>(record["exit"].get<int>())};
  }
  return record;
}

struct StartReport {
  const StartOptions& options;
  std::string device, driver, commit;
  std::array<std::vector<StartCost>, kKept.size()> rounds;
};

double median_of(const std::vector<StartCost>& rounds, double StartCost::* part) {
  std::vector<double> values;
  for (const StartCost& cost : rounds) {
    values.push_back(cost.*part);
  }
  return median(std::move(values));
}

std::string introduction(const StartReport& report) {
  const StartOptions& options = report.options;
  return "start on " + report.device + ", " + report.driver + ", commit " + report.commit + ". A process opens the library and a device, makes a cache of " +
         std::to_string(options.layers) + " layers (" + options.formats + ", " + std::to_string(options.kv_heads) + " KV heads, GQA " + std::to_string(options.group) +
         ", d " + std::to_string(options.head_dim) + ") and feeds a prompt of " + std::to_string(options.tokens) +
         " tokens, then one token more: what the cache and its attention add to the time to the first token. " +
         (options.load_seconds > 0 ? "Between device and cache it sleeps for " + significant(options.load_seconds) + " s, which are not counted. " : "") +
         "Wall time, medians of " +
         std::to_string(options.rounds) + " rounds of processes in turn.";
}

Table start_table(const StartReport& report) {
  Table table({"on disk", "open ms", "prompt ms", "to the first token ms", "next token ms"});
  for (size_t i = 0; i < kKept.size(); ++i) {
    const double open = median_of(report.rounds[i], &StartCost::open), first = median_of(report.rounds[i], &StartCost::first);
    table.add({kKept[i].name, significant(1e3 * open), significant(1e3 * first), significant(1e3 * (open + first)),
               significant(1e3 * median_of(report.rounds[i], &StartCost::second))});
  }
  return table;
}

std::string start_text(const StartReport& report) { return introduction(report) + "\n\n" + start_table(report).render(); }

std::string start_json(const StartReport& report) {
  Json json = {{"bench", "start"},        {"device", report.device},           {"driver", report.driver},       {"commit", report.commit},
               {"rounds", report.options.rounds}, {"layers", report.options.layers}, {"tokens", report.options.tokens}, {"load_seconds", report.options.load_seconds}, {"results", Json::array()}};
  for (size_t i = 0; i < kKept.size(); ++i) {
    json["results"].push_back({{"kept", kKept[i].name},
                               {"open_seconds", median_of(report.rounds[i], &StartCost::open)},
                               {"prompt_seconds", median_of(report.rounds[i], &StartCost::first)},
                               {"next_token_seconds", median_of(report.rounds[i], &StartCost::second)}});
  }
  return json.dump(2) + "\n";
}

std::string start_html(const StartReport& report) {
  HtmlReport page("kvant bench start");
  page.paragraph(introduction(report));
  page.table(start_table(report));
  BarPlot plot{"From an empty process", "ms", {}, {{"open", {}}, {"prompt", {}}, {"next token", {}}}};
  for (size_t i = 0; i < kKept.size(); ++i) {
    plot.categories.emplace_back(kKept[i].name);
    plot.series[0].second.push_back(1e3 * median_of(report.rounds[i], &StartCost::open));
    plot.series[1].second.push_back(1e3 * median_of(report.rounds[i], &StartCost::first));
    plot.series[2].second.push_back(1e3 * median_of(report.rounds[i], &StartCost::second));
  }
  page.plot(plot);
  return page.render_page();
}

// A round: the first process leaves what the others find.
Outcome<void> round(StartReport& report, const std::filesystem::path& folder, Progress& progress) {
  const std::string pipelines = (folder / "pipelines").string(), driver = (folder / "driver").string();
  for (size_t i = 0; i < kKept.size(); ++i) {
    progress.phase(std::string("on disk: ") + kKept[i].name);
    const bool first = i == 0;
    const std::string own = first || kKept[i].library ? pipelines : (folder / ("no pipelines " + std::to_string(i))).string();
    const std::string drivers = first || kKept[i].driver ? driver : (folder / ("no driver " + std::to_string(i))).string();
    std::filesystem::create_directories(own);
    std::filesystem::create_directories(drivers);
    const auto record = live_apart(report.options, own, drivers);
    if (!record.ok()) {
      return record.failure();
    }
    report.device = (*record)["device"];
    report.driver = (*record)["driver"];
    report.commit = (*record)["commit"];
    report.rounds[i].push_back({(*record)["open"], (*record)["first"], (*record)["second"]});
    progress.advance();
  }
  return {};
}

Outcome<void> run(const StartOptions& options) {
  KVANT_TRY(options.output.check());
  if (!options.host.device.pipeline_cache_folder.empty()) {
    return Failure{"--pipeline-cache: this bench makes folders of its own", Exit::kUsage};
  }
  StartReport report{options, {}, {}, {}, {}};
  Progress progress(uint64_t{options.rounds} * kKept.size(), true);
  for (uint32_t i = 0; i < options.rounds; ++i) {
    std::string folder = (std::filesystem::temp_directory_path() / "kvant_start_XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) {
      return Failure{"no temporary folder can be made: " + folder, Exit::kFailed};
    }
    const auto measured = round(report, folder, progress);
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    KVANT_TRY(measured);
  }
  return options.output.write(report, start_text, start_json, start_html);
}

}  // namespace

void add_bench_start_command(CLI::App& bench) {
  auto options = std::make_shared<StartOptions>();
  CLI::App* command = bench.add_subcommand("start", "from a process without anything to its first token, with and without compiled code on disk");
  add_host_options(*command, options->host);
  command->add_option("--formats", options->formats, "a format, or a pair K/V")->capture_default_str();
  command->add_option("--layers", options->layers, "layers")->check(at_least(1))->capture_default_str();
  command->add_option("--tokens", options->tokens, "tokens of the prompt")->check(at_least(1))->capture_default_str();
  command->add_option("--kv-heads", options->kv_heads, "KV heads")->check(at_least(1))->capture_default_str();
  command->add_option("--gqa", options->group, "query heads that share a KV head")->check(at_least(1))->capture_default_str();
  command->add_option("--head-dim", options->head_dim, "head dimension")->check(at_least(1))->capture_default_str();
  command->add_option("--load-seconds", options->load_seconds, "sleep between device and cache, as an engine that loads its weights then; not counted")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  command->add_option("--rounds", options->rounds, "rounds; medians are printed")->check(at_least(1))->capture_default_str();
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
