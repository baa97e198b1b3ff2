// kvant eval: what a pair of K and V formats costs in quality, against the same model with an f32 cache.
#include "eval.hpp"

#include <algorithm>
#include <cstdio>

#include "clock.hpp"
#include "commands.hpp"
#include "eval_report.hpp"
#include "html_report.hpp"

namespace kvant::tools {

Outcome<EvalModel> EvalModel::load(const std::string& name) {
  const auto file = engine::GgufFile::load(find_model_file(name));
  if (!file.ok()) {
    return file.failure();
  }
  auto tokenizer = engine::Tokenizer::from(*file);
  if (!tokenizer.ok()) {
    return tokenizer.failure();
  }
  auto llama = engine::Llama::load(*file);
  if (!llama.ok()) {
    return llama.failure();
  }
  return EvalModel{std::move(*tokenizer), std::move(*llama)};
}

namespace {

const char* const kAllPairs = "all,q8_0/q4_0,q4_0/q8_0,q8_0/nf4_dq";
const char* const kKeysPlain = "plain";
const char* const kKeysOutlier = "outlier";
const char* const kKeysBoth = "both";
const char* const kQuickPairs = "f16,q8_0,q4_0,nf4,nf4_dq";

struct EvalOptions {
  HostOptions host;
  std::string model = "tiny.gguf";
  std::string text = "heldout.txt";
  std::string recall_hard = "recall_hard.txt";
  std::string recall_test = "recall_test.txt";
  std::string tensors = "kv_dump";
  std::string formats;
  int chunks = -1;
  int hard_lines = -1;
  int test_lines = -1;
  bool quick = false;
  bool no_tensors = false;
  std::string keys = kKeysPlain;
  ReportOutput output;
  std::string plot_path;
};

uint32_t count_of(int given, bool quick, uint32_t quick_count, uint32_t usual) {
  return given >= 0 ? static_cast<uint32_t>(given) : quick ? quick_count : usual;
}

// All that is measured with a pair of formats.
struct Parts {
  EvalModel model;
  TextEval text;
  RecallEval hard, test;
  TensorEval tensors;
  AttentionEval attention;
  NeedleEval needles;
  std::shared_ptr<const engine::KeyOutliers> outliers;  // null: not asked for
  bool with_tensors = true;
};

Outcome<Parts> load_parts(const EvalOptions& options) {
  auto model = EvalModel::load(options.model);
  if (!model.ok()) {
    return model.failure();
  }
  auto text = TextEval::load(find_model_file(options.text), *model, count_of(options.chunks, options.quick, 3, 16));
  if (!text.ok()) {
    return text.failure();
  }
  auto hard = RecallEval::load(find_model_file(options.recall_hard), *model,
                               count_of(options.hard_lines, options.quick, 20, 100));
  if (!hard.ok()) {
    return hard.failure();
  }
  auto test = RecallEval::load(find_model_file(options.recall_test), *model,
                               count_of(options.test_lines, options.quick, 10, 40));
  if (!test.ok()) {
    return test.failure();
  }
  Parts parts{std::move(*model), std::move(*text),   std::move(*hard), std::move(*test), {}, {}, {},
              nullptr,           !options.no_tensors};
  if (parts.with_tensors) {
    auto tensors = TensorEval::load(find_model_file(options.tensors));
    if (!tensors.ok()) {
      return tensors.failure();
    }
    parts.tensors = std::move(*tensors);
    parts.attention = AttentionEval::make(options.quick);
    parts.needles = NeedleEval::make(options.quick);
  }
  if (options.keys != kKeysPlain) {
    // So many tokens show how large each head's keys are.
    constexpr size_t kMeasured = 256;
    const std::span<const uint32_t> chunk = parts.text.chunk(0);
    auto outliers = engine::KeyOutliers::measure(parts.model.llama, chunk.first(std::min(kMeasured, chunk.size())));
    if (!outliers.ok()) {
      return outliers.failure();
    }
    parts.outliers = std::make_shared<const engine::KeyOutliers>(std::move(*outliers));
  }
  return parts;
}

Outcome<LanguageFigures> measure_language(Parts& parts, const std::shared_ptr<Device>& device, const FormatPair& pair,
                                          Keys keys, double& bits_per_element, Progress& progress) {
  const std::string what = pair.name() + (keys == Keys::kOutlier ? ", outlier keys" : "");
  parts.model.llama.set_key_outliers(keys == Keys::kOutlier ? parts.outliers : nullptr);
  LanguageFigures figures;
  figures.keys = keys;
  progress.phase(what + ": perplexity");
  const auto scored = parts.text.run(parts.model, device, pair, bits_per_element, progress);
  if (!scored.ok()) {
    return scored.failure();
  }
  figures.text = *scored;
  if (parts.hard.tokens() + parts.test.tokens() > 0) {
    progress.phase(what + ": recall");
  }
  auto recalled = parts.hard.run(parts.model, device, pair, progress);
  if (!recalled.ok()) {
    return recalled.failure();
  }
  figures.recall_hard = *recalled;
  recalled = parts.test.run(parts.model, device, pair, progress);
  if (!recalled.ok()) {
    return recalled.failure();
  }
  figures.recall_test = *recalled;
  return figures;
}

Outcome<void> measure_tensors(const Parts& parts, const std::shared_ptr<Device>& device, PairFigures& figures,
                              Progress& progress) {
  progress.phase(figures.pair.name() + ": recorded tensors");
  auto tensors = parts.tensors.run(device, figures.pair);
  if (!tensors.ok()) {
    return tensors.failure();
  }
  figures.tensors = std::move(*tensors);
  progress.phase(figures.pair.name() + ": attention over made-up keys");
  auto attention = parts.attention.run(device, figures.pair);
  if (!attention.ok()) {
    return attention.failure();
  }
  figures.attention = std::move(*attention);
  auto needles = parts.needles.run(device, figures.pair);
  if (!needles.ok()) {
    return needles.failure();
  }
  figures.needles = std::move(*needles);
  return {};
}

std::vector<FormatFacts> formats_of(const std::vector<FormatPair>& pairs) {
  std::vector<FormatFacts> distinct;
  for (const FormatPair& pair : pairs) {
    for (const FormatFacts& format : {pair.k, pair.v}) {
      if (std::none_of(distinct.begin(), distinct.end(),
                       [&](const FormatFacts& known) { return known.id == format.id; })) {
        distinct.push_back(format);
      }
    }
  }
  return distinct;
}

Outcome<void> measure(const EvalOptions& options, const std::shared_ptr<Device>& device,
                      const std::vector<FormatPair>& pairs, EvalReport& report) {
  auto parts = load_parts(options);
  if (!parts.ok()) {
    return parts.failure();
  }
  report.device = device->facts();
  report.commit = device->library()->commit();
  report.model = options.model;
  report.chunks = parts->text.chunks();
  if (options.keys != kKeysOutlier) {
    report.keys.push_back(Keys::kPlain);
  }
  if (options.keys != kKeysPlain) {
    report.keys.push_back(Keys::kOutlier);
  }
  const std::vector<FormatFacts> formats = parts->with_tensors ? formats_of(pairs) : std::vector<FormatFacts>{};
  // Progress counts tokens; the tensor sets are weighed like some hundreds of them.
  constexpr uint64_t kTensorWeight = 2000;
  const uint64_t language_weight = uint64_t{parts->text.chunks()} * parts->model.llama.config().context +
                                   parts->hard.tokens() + parts->test.tokens();
  const bool extra_reference = report.keys[0] != Keys::kPlain;
  Progress progress(language_weight * (report.keys.size() * pairs.size() + (extra_reference ? 1 : 0)) +
                        (parts->with_tensors ? kTensorWeight * (pairs.size() + formats.size()) : 0),
                    true);
  for (const FormatPair& pair : pairs) {
    const Stopwatch watch;
    PairFigures figures;
    figures.pair = pair;
    std::vector<Keys> all_keys = report.keys;
    if (report.pairs.empty() && extra_reference) {
      all_keys.insert(all_keys.begin(), Keys::kPlain);  // what all others are held against
    }
    for (const Keys keys : all_keys) {
      auto language = measure_language(*parts, device, pair, keys, figures.bits_per_element, progress);
      if (!language.ok()) {
        return language.failure();
      }
      figures.language.push_back(std::move(*language));
    }
    if (parts->with_tensors) {
      KVANT_TRY(measure_tensors(*parts, device, figures, progress));
      progress.advance(kTensorWeight);
    }
    figures.seconds = watch.seconds();
    report.pairs.push_back(std::move(figures));
  }
  for (const FormatFacts& format : formats) {
    progress.phase(format.name + ": made-up data");
    auto figures = eval_synthetic(device, format);
    if (!figures.ok()) {
      return figures.failure();
    }
    report.formats.push_back(std::move(*figures));
    progress.advance(kTensorWeight);
  }
  progress.clear();
  return {};
}

Outcome<void> run(const EvalOptions& options) {
  KVANT_TRY(options.output.check());
  KVANT_TRY(check_output(options.plot_path));
  auto opened = open_device(options.host);
  if (!opened.ok()) {
    return opened.failure();
  }
  const std::string list = !options.formats.empty() ? options.formats : options.quick ? kQuickPairs : kAllPairs;
  // The reference always runs, and first.
  const auto pairs = parse_pairs(*(*opened)->library(), "f32," + list);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  if (!options.plot_path.empty() && pairs->size() == 1) {
    return Failure{"--plot: nothing to draw, since f32 is the reference and --formats names no other", Exit::kUsage};
  }
  EvalReport report;
  KVANT_TRY(measure(options, *opened, *pairs, report));
  KVANT_TRY(options.output.write(
      report, [&](const EvalReport& made) { return options.plot_path == "-" ? std::string() : eval_text(made); }, eval_json, eval_html));
  if (!options.plot_path.empty()) {
    KVANT_TRY(write_file(options.plot_path, render_file(divergence_plot(report))));
  }
  return {};
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand("eval", "quality of K and V formats against an f32 cache");
  add_host_options(*command, options->host);
  command->add_option("--model", options->model, kModelHelp)->capture_default_str();
  command->add_option("--text", options->text, "held-out text, looked for as the model is")->capture_default_str();
  command->add_option("--recall-hard", options->recall_hard, "hard recall prompts: prompt, tab, answer")
      ->capture_default_str();
  command->add_option("--recall-test", options->recall_test, "plain recall prompts, the same")->capture_default_str();
  command->add_option("--tensors", options->tensors, "folder of recorded K, V and Q")->capture_default_str();
  command->add_option("--formats", options->formats,
                      std::string(kFormatsHelp) + " (default: " + kAllPairs + "; with --quick " + kQuickPairs + ")");
  command
      ->add_option("--chunks", options->chunks,
                   "chunks of text, each as long as the model's context (default 16; with --quick 3)")
      ->check(at_least(1));
  command
      ->add_option("--hard-lines", options->hard_lines, "hard recall prompts, 0: none (default 100; with --quick 20)")
      ->check(at_least(0));
  command
      ->add_option("--test-lines", options->test_lines, "plain recall prompts, 0: none (default 40; with --quick 10)")
      ->check(at_least(0));
  command->add_flag("--quick", options->quick, "few chunks, prompts and formats: a minute or two");
  command->add_flag("--no-tensors", options->no_tensors, "leave out recorded and made-up tensors");
  command
      ->add_option("--keys", options->keys,
                   "the model's keys: plain as trained, outlier with large channels that change nothing of what it "
                   "computes, or both")
      ->check(CLI::IsMember({kKeysPlain, kKeysOutlier, kKeysBoth}))
      ->capture_default_str();
  command->add_option("--plot", options->plot_path,
                      "write a plot of divergence by size here, as SVG (default: not written)");
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
