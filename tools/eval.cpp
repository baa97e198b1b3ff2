// kvant eval: what a pair of K and V formats costs in quality, against the same model with an f32 cache.
#include "eval.hpp"

#include <algorithm>
#include <cstdio>

#include "clock.hpp"
#include "commands.hpp"
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
  std::string json_path;
  std::string html_path;
};

uint32_t count_of(int given, bool quick, uint32_t quick_count, uint32_t usual) {
  return given >= 0 ? static_cast<uint32_t>(given) : quick ? quick_count : usual;
}

Outcome<void> run(const EvalOptions& options) {
  KVANT_TRY(check_output(options.json_path));
  KVANT_TRY(check_output(options.html_path));
  auto opened = open_device(options.host);
  if (!opened.ok()) {
    return opened.failure();
  }
  const std::shared_ptr<Device> device = *opened;
  const std::string list = !options.formats.empty() ? options.formats : options.quick ? kQuickPairs : kAllPairs;
  // The reference always runs, and first.
  const auto pairs = parse_pairs(*device->library(), "f32," + list);
  if (!pairs.ok()) {
    return pairs.failure();
  }
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
  TensorEval tensors;
  if (!options.no_tensors) {
    auto loaded = TensorEval::load(find_model_file(options.tensors));
    if (!loaded.ok()) {
      return loaded.failure();
    }
    tensors = std::move(*loaded);
  }

  EvalReport report;
  report.device = device->facts();
  report.commit = device->library()->commit();
  report.model = options.model;
  report.chunks = text->chunks();
  std::vector<FormatFacts> distinct;
  for (const FormatPair& pair : *pairs) {
    for (const FormatFacts& format : {pair.k, pair.v}) {
      if (std::none_of(distinct.begin(), distinct.end(),
                       [&](const FormatFacts& known) { return known.id == format.id; })) {
        distinct.push_back(format);
      }
    }
  }
  // Progress counts tokens; the tensor sets are weighed like a few hundred of them.
  constexpr uint64_t kTensorWeight = 2000;
  const uint64_t pair_tokens =
      uint64_t{text->chunks()} * model->llama.config().context + hard->tokens() + test->tokens() + kTensorWeight;
  Progress progress(pair_tokens * pairs->size() + distinct.size() * kTensorWeight, true);
  for (const FormatPair& pair : *pairs) {
    const Stopwatch watch;
    PairFigures figures;
    figures.pair = pair;
    progress.phase(pair.name() + ": perplexity");
    auto scored = text->run(*model, device, pair, figures.bits_per_element, progress);
    if (!scored.ok()) {
      return scored.failure();
    }
    figures.text = *scored;
    if (hard->tokens() + test->tokens() > 0) {
      progress.phase(pair.name() + ": recall");
    }
    auto recalled = hard->run(*model, device, pair, progress);
    if (!recalled.ok()) {
      return recalled.failure();
    }
    figures.recall_hard = *recalled;
    recalled = test->run(*model, device, pair, progress);
    if (!recalled.ok()) {
      return recalled.failure();
    }
    figures.recall_test = *recalled;
    if (!options.no_tensors) {
      progress.phase(pair.name() + ": recorded tensors");
    }
    auto measured = tensors.run(device, pair);
    if (!measured.ok()) {
      return measured.failure();
    }
    figures.tensors = *measured;
    figures.seconds = watch.seconds();
    report.pairs.push_back(std::move(figures));
    progress.advance(kTensorWeight);
  }
  for (const FormatFacts& format : distinct) {
    if (options.no_tensors) {
      break;
    }
    progress.phase(format.name + ": made-up data");
    auto figures = eval_synthetic(device, format);
    if (!figures.ok()) {
      return figures.failure();
    }
    report.formats.push_back(std::move(*figures));
    progress.advance(kTensorWeight);
  }
  progress.clear();

  if (options.json_path != "-" && options.html_path != "-") {
    std::printf("%s", eval_text(report).c_str());
  }
  if (!options.json_path.empty()) {
    KVANT_TRY(write_file(options.json_path, eval_json(report)));
  }
  if (!options.html_path.empty()) {
    KVANT_TRY(write_file(options.html_path, eval_html(report)));
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
  add_report_options(*command, options->json_path, options->html_path);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
