// kvant bench step: what a decoding step costs the engine's own thread, beside the device: planning, each layer's call, committing.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "bench.hpp"
#include "clock.hpp"
#include "html_report.hpp"
#include "progress.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kKvHeads = 2, kGroup = 2, kHeadDim = 64;  // small: the device's work is not what is measured

struct StepOptions {
  HostOptions host;
  std::string formats = "q4_0";
  std::string batches = "1,8,64";
  uint32_t layers = 32;
  uint32_t tokens = 64;
  uint32_t rounds = 9;
  uint32_t repetitions = 16;  // steps a round
  ReportOutput output;
};

// Processor time of this thread: waiting for the device and the driver's own threads do not count.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Of one step, seconds.
struct StepCost {
  double plan = 0, run = 0, commit = 0;  // of this thread
  double wall = 0;
};

class StepCase {
 public:
  static Outcome<StepCase> make(const std::shared_ptr<Device>& device, const FormatPair& pair, uint32_t batch, const StepOptions& options) {
    StepCase made;
    made.format = pair.name();
    made.batch = batch;
    made.layers_ = options.layers;
    // Room for every step of every round, in whole pages of each sequence.
    const uint64_t tokens = uint64_t{options.tokens} + uint64_t{options.repetitions} * (options.rounds + 1) + 16;
    auto cache = Cache::create(device, cache_shape(pair, options.layers, kKvHeads, kHeadDim, tokens * batch));
    if (!cache.ok()) {
      return cache.failure();
    }
    made.cache_ = *cache;
    for (uint32_t i = 0; i < batch; ++i) {
      const auto sequence = made.cache_->create_sequence();
      if (!sequence.ok()) {
        return sequence.failure();
      }
      kvant_step_entry entry{};
      entry.struct_size = sizeof(entry);
      entry.sequence = *sequence;
      made.entries_.push_back(entry);
    }
    made.rows_.assign(size_t{std::max(options.tokens, 1U)} * batch * kKvHeads * kGroup * kHeadDim, 0.5F);
    made.out_.resize(size_t{batch} * kKvHeads * kGroup * kHeadDim);
    const auto filled = made.step(options.tokens);
    if (!filled.ok()) {
      return filled.failure();
    }
    return made;
  }

  // Appends `tokens` to every sequence and attends with the last one of each.
  Outcome<StepCost> step(uint32_t tokens) {
    for (kvant_step_entry& entry : entries_) {
      entry.append = tokens;
      entry.queries = 1;
    }
    kvant_step_args args{};
    args.struct_size = sizeof(args);
    args.entry_count = static_cast<uint32_t>(entries_.size());
    args.entries = entries_.data();
    const kvant_tensor kv = float_tensor(rows_.data(), uint64_t{batch} * tokens * kKvHeads * kHeadDim);
    const kvant_tensor q = float_tensor(rows_.data(), out_.size());
    const kvant_tensor out = float_tensor(out_.data(), out_.size());
    kvant_run_args run{};
    run.struct_size = sizeof(run);
    run.k = &kv;
    run.v = &kv;
    run.q = &q;
    run.out = &out;
    run.q_heads = kKvHeads * kGroup;
    const kvant_api& api = cache_->api();
    kvant_step* planned = nullptr;
    StepCost cost;
    const Stopwatch watch;
    const double begin = thread_seconds();
    KVANT_TRY(cache_->check(api.step_plan(cache_->handle(), &args, &planned)));
    const double after_plan = thread_seconds();
    for (uint32_t layer = 0; layer < layers_; ++layer) {
      const auto ran = cache_->check(api.step_run(planned, layer, &run));
      if (!ran.ok()) {
        api.step_abort(planned);
        return ran.failure();
      }
    }
    const double after_run = thread_seconds();
    KVANT_TRY(cache_->check(api.step_commit(planned)));
    const double after_commit = thread_seconds();
    cost.wall = watch.seconds();
    cost.plan = after_plan - begin;
    cost.run = after_run - after_plan;
    cost.commit = after_commit - after_run;
    return cost;
  }

  std::string format;
  uint32_t batch = 1;
  std::vector<StepCost> rounds;

 private:
  std::shared_ptr<Cache> cache_;
  std::vector<kvant_step_entry> entries_;
  std::vector<float> rows_, out_;
  uint32_t layers_ = 0;
};

struct StepReport {
  DeviceFacts device;
  std::string commit;  // of the library
  const StepOptions& options;
  std::vector<StepCase> cases;
};

double median_of(const StepCase& one, double StepCost::* part) {
  std::vector<double> values;
  for (const StepCost& cost : one.rounds) {
    values.push_back(cost.*part);
  }
  return median(std::move(values));
}

double host_seconds(const StepCase& one) {
  return median_of(one, &StepCost::plan) + median_of(one, &StepCost::run) + median_of(one, &StepCost::commit);
}

std::string introduction(const StepReport& report) {
  return "step on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit + ". One token for each of the sequences, " +
         std::to_string(report.options.layers) + " layers of " + std::to_string(kKvHeads) + " KV heads, GQA " + std::to_string(kGroup) + ", d " +
         std::to_string(kHeadDim) + ", tensors in host memory, one submit a layer. Processor time of the calling thread: the checks of the ABI, planning, "
         "copies into staging memory, recording, and the driver's part of a submit. Medians of " +
         std::to_string(report.options.rounds) + " rounds of " + std::to_string(report.options.repetitions) + " steps.";
}

Table step_table(const StepReport& report) {
  Table table({"format", "sequences", "plan µs", "run µs a layer", "commit µs", "all µs a layer", "wall µs a layer"});
  for (const StepCase& one : report.cases) {
    const double layers = report.options.layers;
    table.add({one.format, std::to_string(one.batch), significant(1e6 * median_of(one, &StepCost::plan)),
               significant(1e6 * median_of(one, &StepCost::run) / layers), significant(1e6 * median_of(one, &StepCost::commit)),
               significant(1e6 * host_seconds(one) / layers), significant(1e6 * median_of(one, &StepCost::wall) / layers)});
  }
  return table;
}

std::string step_json(const StepReport& report) {
  Json json = {{"bench", "step"},         {"device", report.device.name},     {"driver", report.device.driver},
               {"commit", report.commit}, {"layers", report.options.layers},  {"tokens", report.options.tokens},
               {"kv_heads", kKvHeads},    {"gqa", kGroup},                    {"head_dim", kHeadDim},
               {"rounds", report.options.rounds}, {"steps", report.options.repetitions}, {"results", Json::array()}};
  for (const StepCase& one : report.cases) {
    json["results"].push_back({{"format", one.format},
                               {"sequences", one.batch},
                               {"plan_seconds", median_of(one, &StepCost::plan)},
                               {"run_seconds", median_of(one, &StepCost::run)},
                               {"commit_seconds", median_of(one, &StepCost::commit)},
                               {"wall_seconds", median_of(one, &StepCost::wall)}});
  }
  return json.dump(2) + "\n";
}

std::string step_html(const StepReport& report) {
  HtmlReport page("kvant bench step");
  page.paragraph(introduction(report));
  page.table(step_table(report));
  BarPlot plot{"Processor time of the calling thread", "µs a layer", {}, {{"plan and commit", {}}, {"run", {}}}};
  for (const StepCase& one : report.cases) {
    const double layers = report.options.layers, run = median_of(one, &StepCost::run);
    plot.categories.push_back(one.format + " · " + std::to_string(one.batch) + (one.batch == 1 ? " sequence" : " sequences"));
    plot.series[0].second.push_back(1e6 * (host_seconds(one) - run) / layers);
    plot.series[1].second.push_back(1e6 * run / layers);
  }
  page.plot(plot);
  return page.render_page();
}

Outcome<void> measure(StepReport& report) {
  const StepOptions& options = report.options;
  Progress progress(uint64_t{options.rounds + 1} * report.cases.size(), true);
  for (uint32_t round = 0; round <= options.rounds; ++round) {
    progress.phase(round == 0 ? "warm-up" : "round " + std::to_string(round) + " of " + std::to_string(options.rounds));
    for (StepCase& one : report.cases) {
      StepCost sum;
      for (uint32_t i = 0; i < options.repetitions; ++i) {
        const auto cost = one.step(1);
        if (!cost.ok()) {
          return cost.failure();
        }
        for (double StepCost::* part : {&StepCost::plan, &StepCost::run, &StepCost::commit, &StepCost::wall}) {
          sum.*part += (*cost).*part / options.repetitions;
        }
      }
      if (round != 0) {
        one.rounds.push_back(sum);
      }
      progress.advance();
    }
  }
  return {};
}

Outcome<void> run(const StepOptions& options) {
  KVANT_TRY(options.output.check());
  const auto opened = open_device(options.host);
  if (!opened.ok()) {
    return opened.failure();
  }
  const auto pairs = parse_pairs(*(*opened)->library(), options.formats);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  const auto batches = parse_counts("number of sequences", options.batches);
  if (!batches.ok()) {
    return batches.failure();
  }
  StepReport report{(*opened)->facts(), (*opened)->library()->commit(), options, {}};
  for (const FormatPair& pair : *pairs) {
    for (const uint32_t batch : *batches) {
      auto made = StepCase::make(*opened, pair, batch, options);
      if (!made.ok()) {
        return made.failure();
      }
      report.cases.push_back(std::move(*made));
    }
  }
  KVANT_TRY(measure(report));
  KVANT_TRY(options.output.write(report, [](const auto& r) { return introduction(r) + "\n\n" + step_table(r).render(); }, step_json, step_html));
  return {};
}

}  // namespace

void add_bench_step_command(CLI::App& bench) {
  auto options = std::make_shared<StepOptions>();
  CLI::App* command = bench.add_subcommand("step", "what a decoding step costs the engine's own thread, layer by layer");
  add_host_options(*command, options->host);
  command->add_option("--formats", options->formats, kFormatsHelp)->capture_default_str();
  command->add_option("--batch", options->batches, "sequences, comma-separated")->capture_default_str();
  command->add_option("--layers", options->layers, "layers")->check(at_least(1))->capture_default_str();
  command->add_option("--tokens", options->tokens, "tokens of each sequence to begin with")->check(at_least(1))->capture_default_str();
  command->add_option("--rounds", options->rounds, "interleaved rounds; medians are printed")->check(at_least(1))->capture_default_str();
  command->add_option("--steps", options->repetitions, "steps a round")->check(at_least(1))->capture_default_str();
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
