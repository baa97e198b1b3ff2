// kvant memory-curve: fills caches with held-out text, limits their memory, and lets the model read on over what is
// left. The command; memory_curve_run.cpp has the work of one cache.
#include "memory_curve.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "commands.hpp"
#include "eval.hpp"
#include "html_report.hpp"
#include "memory_curve_run.hpp"
#include "progress.hpp"
#include "sensitivity.hpp"

namespace kvant::tools {

namespace {

struct CurveOptions {
  HostOptions host;
  std::string model = "tiny.gguf";
  std::string text = "heldout.txt";
  std::string formats = "f32,f16";
  std::string ladder = "q8_0,q4_0";
  std::string limits = "100,90,80,70,60,50,40,30,20,10,5";
  uint32_t chunks = 4;
  uint32_t context = 0;
  uint32_t idle = 0;
  uint32_t slab_bytes = 65536;
  std::string sensitivity;
  bool prune = false;
  uint32_t sinks = 4;
  uint32_t recent = 64;
  uint32_t step = 32;
  bool no_plans = false;
  ReportOutput output;
};

Outcome<CurvePoint> measure_point(EvalModel& model, const TextEval& text, const std::shared_ptr<Device>& device,
                                  const CurveReport& report, const FormatPair& pair, const Sensitivity* sensitivity,
                                  bool measured, uint32_t percent, Progress& progress) {
  CurvePoint point;
  double sum = 0, newest_sum = 0, divergence = 0;
  for (uint32_t chunk = 0; chunk < report.chunks; ++chunk) {
    CurvePoint own;
    own.percent = percent;
    LimitRun run(model, text, report);
    KVANT_TRY(run.fill(device, pair, chunk));
    if (measured) {
      KVANT_TRY(run.weigh(*sensitivity));
    }
    KVANT_TRY(run.limit(own));
    if (own.pruned()) {
      KVANT_TRY(run.read_again(own, LimitRun::Keep::kHeaviest, sum));
      KVANT_TRY(run.read_again(own, LimitRun::Keep::kNewest, newest_sum));
    } else if (own.met) {
      std::vector<float> rows;
      KVANT_TRY(run.read_on(own, rows));
      sum += run.negative_log(report.context / 2, rows);
      if (sensitivity != nullptr) {
        divergence += run.divergence(sensitivity->unchanged[chunk], rows);
      }
    }
    own.bytes_largest = std::max(own.bytes_largest, point.bytes_largest);
    point = own;
    if (!own.met) {  // every chunk holds as many pages as this one
      progress.advance(report.chunks - chunk);
      return point;
    }
    progress.advance();
  }
  const double scored = static_cast<double>(report.chunks) * report.scored;
  point.perplexity = std::exp(sum / scored);
  point.kl_mean = divergence / scored;
  point.newest_perplexity = point.pruned() ? std::exp(newest_sum / scored) : 0;
  return point;
}

Outcome<void> run(const CurveOptions& options) {
  KVANT_TRY(options.output.check());
  auto device = open_device(options.host);
  if (!device.ok()) {
    return device.failure();
  }
  const Library& library = *(*device)->library();
  const auto pairs = parse_pairs(library, options.formats);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  const auto ladder = parse_pairs(library, options.ladder);
  if (!ladder.ok()) {
    return ladder.failure();
  }
  for (const FormatPair& step : *ladder) {
    if (step.k.id != step.v.id) {
      return Failure{"the ladder's step (" + step.name() + ") is not one format, as a side becomes", Exit::kUsage};
    }
  }
  const auto narrow =
      options.sensitivity.empty() ? std::vector<FormatPair>{} : parse_pairs(library, options.sensitivity);
  if (!narrow.ok()) {
    return narrow.failure();
  }
  if (narrow->size() > 1 || (narrow->size() == 1 && narrow->front().k.id != narrow->front().v.id)) {
    return Failure{"--sensitivity (" + options.sensitivity + ") is not one format", Exit::kUsage};
  }
  const auto limits = parse_counts("limit", options.limits);
  if (!limits.ok()) {
    return limits.failure();
  }
  auto model = EvalModel::load(options.model);
  if (!model.ok()) {
    return model.failure();
  }
  const auto text = TextEval::load(find_model_file(options.text), *model, std::max(options.chunks, options.idle + 1));
  if (!text.ok()) {
    return text.failure();
  }
  if (text->chunks() <= options.idle) {
    return bad_model(options.text + ": has " + std::to_string(text->chunks()) + " chunks, fewer than the " +
                     std::to_string(options.idle) + " idle ones and the one in use");
  }
  CurveReport report;
  report.device = (*device)->facts();
  report.commit = library.commit();
  report.model = options.model;
  report.text = options.text;
  report.ladder = *ladder;
  report.chunks = std::min(options.chunks, text->chunks());
  const uint32_t longest = model->llama.config().context;
  report.context = options.context == 0 ? longest : options.context;
  if (report.context > longest || report.context < 4) {
    return Failure{
        "--context (" + std::to_string(report.context) + ") is not from 4 to the model's " + std::to_string(longest),
        Exit::kUsage};
  }
  report.scored = report.context - report.context / 2 - 1;  // nothing follows the last token
  report.idle = options.idle;
  report.slab_bytes = options.slab_bytes;
  report.prune = options.prune;
  report.sinks = options.sinks;
  report.recent = options.recent;
  report.step = options.step;
  const bool print = options.output.prints();
  const bool weighted = !narrow->empty();
  const uint64_t sides = weighted ? 2 * uint64_t{model->llama.config().layers} + 1 : 0;
  const uint64_t points = limits->size() * (weighted ? 2 : 1);
  Progress progress(pairs->size() * (points + sides) * report.chunks, true);
  for (const FormatPair& pair : *pairs) {
    if (weighted) {
      progress.phase(pair.name() + ", sensitivity");
      auto found = measure_sensitivity(*model, *text, *device, report, pair, narrow->front().k, progress);
      if (!found.ok()) {
        return found.failure();
      }
      report.sensitivities.push_back(std::move(*found));
    }
    for (const bool measured : {false, true}) {
      if (measured && !weighted) {
        continue;
      }
      Curve curve{pair, measured, {}};
      for (const uint32_t percent : *limits) {
        progress.phase(curve.name() + " at " + std::to_string(percent) + " %");
        const Sensitivity* const own = weighted ? &report.sensitivities.back() : nullptr;
        auto point = measure_point(*model, *text, *device, report, pair, own, measured, percent, progress);
        if (!point.ok()) {
          return point.failure();
        }
        if (print && !options.no_plans) {
          progress.clear();
          std::printf("%s pool, %u %%: %s\n", curve.name().c_str(), percent, point->plan.c_str());
        }
        curve.points.push_back(std::move(*point));
      }
      report.curves.push_back(std::move(curve));
    }
  }
  progress.clear();
  KVANT_TRY(options.output.write(report, curve_text, curve_json, curve_html));
  return {};
}

}  // namespace

void add_memory_curve_command(CLI::App& app) {
  auto options = std::make_shared<CurveOptions>();
  CLI::App* command = app.add_subcommand("memory-curve", "perplexity of a cache under memory limits, with their plans");
  add_host_options(*command, options->host);
  command->add_option("--model", options->model, kModelHelp)->capture_default_str();
  command->add_option("--text", options->text, "held-out text, looked for as the model is")->capture_default_str();
  command->add_option("--formats", options->formats, "formats that pools are filled in, as formats or pairs K/V")
      ->capture_default_str();
  command->add_option("--ladder", options->ladder, "what a layer's side may become, from wide to narrow")
      ->capture_default_str();
  command->add_option("--limits", options->limits, "limits in percent of the filled pool's bytes, comma-separated")
      ->capture_default_str();
  command->add_option("--chunks", options->chunks, "chunks of text, each as long as the model's context")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--context", options->context, "tokens of a chunk that are read; 0: the model's context")
      ->check(at_least(0))
      ->capture_default_str();
  command->add_option("--idle", options->idle, "further chunks in the pool that only the prefix cache holds")
      ->check(at_least(0))
      ->capture_default_str();
  command->add_option("--slab-bytes", options->slab_bytes, "what memory is taken and given back by, a layer")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option(
      "--sensitivity", options->sensitivity,
      "measure first what narrowing each side alone to this format does, and draw the curves again with "
      "these weights");
  command->add_flag("--prune", options->prune,
                    "count attention mass, and let limits that formats do not reach drop the lightest tokens");
  command->add_option("--sinks", options->sinks, "first tokens that pruning keeps")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--recent", options->recent, "last tokens that pruning keeps")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--step", options->step, "most tokens read at once, and so pruned at once, after pruning")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_flag("--no-plans", options->no_plans, "print the table alone, not the plans");
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
