// kvant plan-formats: measures what each format costs in each side of each layer, and writes the plan of the least divergence within a budget.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "clock.hpp"
#include "commands.hpp"
#include "engine/plan_choice.hpp"
#include "eval.hpp"
#include "format_plan.hpp"
#include "html_report.hpp"
#include "table.hpp"

namespace kvant::tools {

namespace {

constexpr const char* kSides[] = {"K", "V"};

struct PlanOptions {
  HostOptions host;
  std::string model = "tiny.gguf";
  std::string text = "heldout.txt";
  std::string formats = "t2+cr,t3+cr,t4+cr,t5+cr,q8h+cr";
  std::string rest = "f16";
  double bits = 4.25;
  int chunks = 2;
  std::string out;
};

struct Measured {
  std::vector<std::vector<double>> divergence;  // [2 * layer + side][format]: alone in that side, all others as `rest`
  uint64_t tokens = 0;
};

// `rest` everywhere.
FormatPair uniform(const FormatPair& rest, uint32_t layers) {
  FormatPair plan = rest;
  plan.by_layer.assign(layers, {rest.k.id, rest.v.id, rest.transform_k, rest.transform_v, 1, 1});
  return plan;
}

void set_side(LayerFormats& layer, uint32_t side, const FormatPair& format) {
  (side == 0 ? layer.format_k : layer.format_v) = format.k.id;
  (side == 0 ? layer.transform_k : layer.transform_v) = format.transform_k;
}

Outcome<Measured> measure(EvalModel& model, TextEval& text, const std::shared_ptr<Device>& device, const FormatPair& rest,
                          const std::vector<FormatPair>& formats, Progress& progress) {
  const uint32_t layers = model.llama.config().layers;
  Measured found;
  found.divergence.resize(2 * size_t{layers});
  for (uint32_t i = 0; i < 2 * layers; ++i) {
    for (const FormatPair& format : formats) {
      progress.phase("layer " + std::to_string(i / 2) + ", " + kSides[i % 2] + ": " + format.name());
      FormatPair plan = uniform(rest, layers);
      set_side(plan.by_layer[i / 2], i % 2, format);
      double bits = 0;
      const auto figures = text.run(model, device, plan, bits, progress);
      if (!figures.ok()) {
        return figures.failure();
      }
      found.divergence[i].push_back(figures->kl_mean);
      found.tokens = figures->tokens;
    }
  }
  return found;
}

// A weight says how much a side minds being narrowed, 1 in the mean: by what the narrowest format costs it.
void set_weights(FormatPair& plan, const Measured& found, size_t narrowest) {
  double all = 0;
  for (const std::vector<double>& side : found.divergence) {
    all += side[narrowest];
  }
  for (size_t i = 0; i < found.divergence.size() && all > 0; ++i) {
    const double weight = found.divergence[i][narrowest] * static_cast<double>(found.divergence.size()) / all;
    (i % 2 == 0 ? plan.by_layer[i / 2].weight_k : plan.by_layer[i / 2].weight_v) = weight;
  }
}

Outcome<void> print_checked(EvalModel& model, TextEval& text, const std::shared_ptr<Device>& device, const std::vector<FormatPair>& formats,
                            const FormatPair& plan, double expected, Progress& progress) {
  Table table({"formats", "bits", "PPL", "KL mean", "KL p99", "same top-1"});
  std::vector<FormatPair> all = formats;
  all.insert(all.begin(), plan);
  for (const FormatPair& pair : all) {
    progress.phase(pair.name());
    double bits = 0;
    const auto figures = text.run(model, device, pair, bits, progress);
    if (!figures.ok()) {
      return figures.failure();
    }
    table.add({pair.name(), fixed(bits, 2), fixed(figures->perplexity, 4), significant(figures->kl_mean), significant(figures->kl_p99),
               percent(figures->top1_agreement, 2)});
  }
  progress.clear();
  std::printf("The plan, %s expected of the sums of the sides, and one format everywhere, on the same text:\n\n%s\n",
              significant(expected).c_str(), table.render().c_str());
  return {};
}

Outcome<void> run(const PlanOptions& options) {
  KVANT_TRY(check_output(options.out));
  auto opened = open_device(options.host);
  if (!opened.ok()) {
    return opened.failure();
  }
  const Library& library = *(*opened)->library();
  auto formats = parse_pairs(library, options.formats);
  if (!formats.ok()) {
    return formats.failure();
  }
  const auto rest = parse_pairs(library, options.rest);
  if (!rest.ok()) {
    return rest.failure();
  }
  for (const FormatPair& pair : *formats) {
    if (!pair.by_layer.empty() || pair.k.id != pair.v.id || pair.transform_k != pair.transform_v) {
      return Failure{"--formats: \"" + pair.name() + "\" is not one format", Exit::kUsage};
    }
  }
  if (rest->size() != 1 || !rest->front().by_layer.empty()) {
    return Failure{"--rest (\"" + options.rest + "\") is not one format or pair", Exit::kUsage};
  }
  std::sort(formats->begin(), formats->end(),
            [](const FormatPair& a, const FormatPair& b) { return a.k.bits_per_element < b.k.bits_per_element; });
  auto model = EvalModel::load(options.model);
  if (!model.ok()) {
    return model.failure();
  }
  auto text = TextEval::load(find_model_file(options.text), *model, static_cast<uint32_t>(options.chunks), true);
  if (!text.ok()) {
    return text.failure();
  }
  const uint32_t layers = model->llama.config().layers;
  std::vector<FormatPair> named = *formats;
  named.insert(named.end(), rest->begin(), rest->end());
  for (const FormatPair& pair : named) {
    if (pair.protect != 0) {
      return Failure{"\"" + pair.name() + "\": tokens are protected in all layers or in none, which is no part of a plan; leave out +p", Exit::kUsage};
    }
  }
  const auto reference = parse_pairs(library, "f32");
  if (!reference.ok()) {
    return reference.failure();
  }
  Progress progress(uint64_t{text->chunks()} * model->llama.config().context * (2 + formats->size() * (2 * layers + 1)), true);
  progress.phase("f32");
  double bits = 0;
  if (const auto first = text->run(*model, *opened, reference->front(), bits, progress); !first.ok()) {
    return first.failure();
  }
  const auto found = measure(*model, *text, *opened, rest->front(), *formats, progress);
  if (!found.ok()) {
    return found.failure();
  }
  std::vector<std::vector<engine::PlanOption>> sides;
  for (const std::vector<double>& divergence : found->divergence) {
    std::vector<engine::PlanOption>& side = sides.emplace_back();
    for (size_t f = 0; f < formats->size(); ++f) {
      side.push_back({(*formats)[f].k.bits_per_element, divergence[f]});
    }
  }
  const std::vector<size_t> choice = engine::choose_options(sides, options.bits);
  if (choice.empty()) {
    return Failure{"--bits " + fixed(options.bits, 2) + ": even " + formats->front().name() + " everywhere takes " +
                       fixed(formats->front().k.bits_per_element, 2),
                   Exit::kUsage};
  }
  FormatPair plan = uniform(rest->front(), layers);
  plan.label = "plan";
  double expected = 0, mean_bits = 0;
  std::vector<std::string> columns{"layer", "side"};
  for (const FormatPair& format : *formats) {
    columns.push_back("KL " + format.name());
  }
  columns.push_back("chosen");
  Table table(columns);
  for (size_t i = 0; i < choice.size(); ++i) {
    set_side(plan.by_layer[i / 2], i % 2, (*formats)[choice[i]]);
    expected += sides[i][choice[i]].cost;
    mean_bits += sides[i][choice[i]].bits / static_cast<double>(choice.size());
    std::vector<std::string> row{std::to_string(i / 2), kSides[i % 2]};
    for (const double divergence : found->divergence[i]) {
      row.push_back(significant(divergence));
    }
    row.push_back((*formats)[choice[i]].name());
    table.add(row);
  }
  set_weights(plan, *found, 0);
  progress.clear();
  std::printf("%s on %s, library %s: divergence of one side alone from f32, the others %s; last %u chunks of the text, %llu tokens scored\n\n%s\n",
              options.model.c_str(), device_text(**opened).c_str(), library.commit().c_str(), rest->front().name().c_str(), text->chunks(),
              static_cast<unsigned long long>(found->tokens), table.render().c_str());
  KVANT_TRY(print_checked(*model, *text, *opened, *formats, plan, expected, progress));
  if (!options.out.empty()) {
    KVANT_TRY(write_file(options.out, plan_text(library, plan, std::filesystem::path(options.model).filename().string(), mean_bits)));
    if (options.out != "-") {
      std::printf("Written to %s: --formats @%s takes it.\n", options.out.c_str(), options.out.c_str());
    }
  }
  return {};
}

}  // namespace

void add_plan_formats_command(CLI::App& app) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* command = app.add_subcommand("plan-formats", "formats for each layer's K and V within a budget, by what each costs the model");
  add_host_options(*command, options->host);
  command->add_option("--model", options->model, kModelHelp)->capture_default_str();
  command->add_option("--text", options->text, "calibration text, looked for as the model is; its last chunks are read")->capture_default_str();
  command->add_option("--formats", options->formats, "formats to choose from")->capture_default_str();
  command->add_option("--rest", options->rest, "format of all other sides while one is measured")->capture_default_str();
  command->add_option("--bits", options->bits, "most bits per element, in the mean over all sides")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--chunks", options->chunks, "chunks of text, each as long as the model's context")->check(at_least(1))->capture_default_str();
  command->add_option("--out", options->out, "write the plan here as JSON, - for standard output (default: not written)");
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
