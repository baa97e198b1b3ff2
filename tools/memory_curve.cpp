// kvant memory-curve: fills a cache with held-out text, limits its memory, and lets the model read on over what is
// left.
#include "memory_curve.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "commands.hpp"
#include "engine/cache_attention.hpp"
#include "engine/session.hpp"
#include "eval.hpp"
#include "html_report.hpp"
#include "progress.hpp"

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
  uint32_t idle = 0;
  uint32_t slab_bytes = 65536;
  bool no_plans = false;
  std::string json_path;
  std::string html_path;
};

// Negative log-likelihood of row i's next token, summed over the rows.
double negative_log(const std::vector<float>& logits, uint32_t vocabulary, std::span<const uint32_t> next) {
  double sum = 0;
  for (size_t row = 0; row < next.size(); ++row) {
    const float* const own = &logits[row * vocabulary];
    const double largest = static_cast<double>(*std::max_element(own, own + vocabulary));
    double mass = 0;
    for (uint32_t i = 0; i < vocabulary; ++i) {
      mass += std::exp(static_cast<double>(own[i]) - largest);
    }
    sum += largest + std::log(mass) - static_cast<double>(own[next[row]]);
  }
  return sum;
}

// One cache of one chunk: filled, limited, read on.
class LimitRun {
 public:
  LimitRun(EvalModel& model, const TextEval& text, const CurveReport& report)
      : model_(model), text_(text), report_(report) {}

  // The sequence in use gets the whole chunk without token ids, so that the prefix cache never holds it as well.
  Outcome<void> fill(const std::shared_ptr<Device>& device, const FormatPair& pair, const std::string& model_id,
                     uint32_t chunk) {
    chunk_ = &text_.chunk(chunk);
    const engine::AttentionShape attention = model_.llama.config().attention();
    CacheShape shape{attention.layers, attention.kv_heads, attention.head_dim, pair.k.id, pair.v.id, 0};
    shape.capacity_tokens = uint64_t{report_.context} * (report_.idle + 1);
    shape.slab_bytes = report_.slab_bytes;
    shape.prefixes = report_.idle > 0;
    shape.model_id = model_id;
    auto made = engine::CacheAttention::create(device, attention, shape, 1);
    if (!made.ok()) {
      return made.failure();
    }
    cache_ = std::move(*made);
    std::vector<float> logits;
    for (uint32_t i = 1; i <= report_.idle; ++i) {
      const std::vector<uint32_t>& idle = text_.chunk((chunk + i) % text_.chunks());
      const auto reused = cache_->open(0, idle);
      if (!reused.ok()) {
        return reused.failure();
      }
      engine::Session session(model_.llama, *cache_, true);
      const std::span<const uint32_t> tokens(idle);
      session.resume(tokens.first(*reused));
      KVANT_TRY(session.feed(tokens.subspan(*reused), logits));
    }
    if (const auto opened = cache_->open(0, {}); !opened.ok()) {
      return opened.failure();
    }
    const uint32_t half = report_.context / 2;
    KVANT_TRY(feed(0, half, logits, false));
    return feed(half, report_.context - half, logits, false);
  }

  // Plans and sets the limit; the point is only begun if it cannot be met.
  Outcome<void> limit(CurvePoint& point, const std::vector<uint32_t>& ladder) {
    const auto before = pool_bytes();
    if (!before.ok()) {
      return before.failure();
    }
    point.bytes_before = *before;
    point.limit_bytes = *before * point.percent / 100;
    const auto plan = cache_->cache().memory_plan(point.limit_bytes, ladder);
    if (!plan.ok()) {
      return plan.failure();
    }
    point.met = plan->possible;
    point.plan = plan->text;
    const auto limited = cache_->cache().memory_limit(point.limit_bytes, ladder);
    if (point.met && !limited.ok()) {
      return limited.failure();
    }
    if (!point.met && limited.ok()) {
      return Failure{"memory_plan says that " + point.plan + ", and memory_limit takes it"};
    }
    return watch(point, point.bytes_after);
  }

  // The second half of the chunk once more, over what the limit has left of the first: adds to `sum`.
  Outcome<void> read_on(CurvePoint& point, double& sum) {
    const uint32_t half = report_.context / 2;
    KVANT_TRY(cache_->truncate(half));
    std::vector<float> logits;
    KVANT_TRY(feed(half, report_.scored, logits, true));
    const std::span<const uint32_t> next(chunk_->data() + half + 1, report_.scored);
    sum += negative_log(logits, model_.llama.config().vocabulary, next);
    uint64_t now = 0;
    return watch(point, now);
  }

 private:
  Outcome<void> feed(uint32_t begin, uint32_t count, std::vector<float>& logits, bool scored) {
    engine::Batch batch;
    batch.entries = {{0, begin, count}};
    batch.tokens.assign(chunk_->begin() + begin, chunk_->begin() + begin + count);
    for (uint32_t row = 0; scored && row < count; ++row) {
      batch.logit_rows.push_back(row);
    }
    return model_.llama.forward(batch, *cache_, logits);
  }

  Outcome<uint64_t> pool_bytes() {
    const auto stats = cache_->cache().stats();
    if (!stats.ok()) {
      return stats.failure();
    }
    return stats->pool_bytes;
  }

  // Keeps the pool's size and holds it against the limit, or where that was refused, against what it was.
  Outcome<void> watch(CurvePoint& point, uint64_t& bytes) {
    const auto now = pool_bytes();
    if (!now.ok()) {
      return now.failure();
    }
    bytes = *now;
    point.bytes_largest = std::max(point.bytes_largest, bytes);
    if (point.met ? bytes > point.limit_bytes : bytes != point.bytes_before) {
      return Failure{"the pool has " + std::to_string(bytes) + " bytes after a limit of " +
                     std::to_string(point.limit_bytes) + (point.met ? "" : ", which was refused") + "; it had " +
                     std::to_string(point.bytes_before)};
    }
    return {};
  }

  EvalModel& model_;
  const TextEval& text_;
  const CurveReport& report_;
  const std::vector<uint32_t>* chunk_ = nullptr;
  std::unique_ptr<engine::CacheAttention> cache_;
};

Outcome<CurvePoint> measure_point(EvalModel& model, const TextEval& text, const std::shared_ptr<Device>& device,
                                  const CurveReport& report, const FormatPair& pair, uint32_t percent,
                                  Progress& progress) {
  std::vector<uint32_t> ladder;
  for (const FormatPair& step : report.ladder) {
    ladder.push_back(step.k.id);
  }
  CurvePoint point;
  double sum = 0;
  for (uint32_t chunk = 0; chunk < report.chunks; ++chunk) {
    CurvePoint own;
    own.percent = percent;
    LimitRun run(model, text, report);
    KVANT_TRY(run.fill(device, pair, report.model, chunk));
    KVANT_TRY(run.limit(own, ladder));
    if (own.met) {
      KVANT_TRY(run.read_on(own, sum));
    }
    own.bytes_largest = std::max(own.bytes_largest, point.bytes_largest);
    point = own;
    if (!own.met) {  // every chunk holds as many pages as this one
      progress.advance(report.chunks - chunk);
      return point;
    }
    progress.advance();
  }
  point.perplexity = std::exp(sum / (static_cast<double>(report.chunks) * report.scored));
  return point;
}

Outcome<void> run(const CurveOptions& options) {
  KVANT_TRY(check_output(options.json_path));
  KVANT_TRY(check_output(options.html_path));
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
  report.context = model->llama.config().context;
  report.scored = report.context - report.context / 2 - 1;  // nothing follows the last token
  report.idle = options.idle;
  report.slab_bytes = options.slab_bytes;
  const bool print = options.json_path != "-" && options.html_path != "-";
  Progress progress(uint64_t{pairs->size()} * limits->size() * report.chunks, true);
  for (const FormatPair& pair : *pairs) {
    Curve curve{pair, {}};
    for (const uint32_t percent : *limits) {
      progress.phase(pair.name() + " at " + std::to_string(percent) + " %");
      auto point = measure_point(*model, *text, *device, report, pair, percent, progress);
      if (!point.ok()) {
        return point.failure();
      }
      if (print && !options.no_plans) {
        progress.clear();
        std::printf("%s pool, %u %%: %s\n", pair.name().c_str(), percent, point->plan.c_str());
      }
      curve.points.push_back(std::move(*point));
    }
    report.curves.push_back(std::move(curve));
  }
  progress.clear();
  if (print) {
    std::printf("%s", curve_text(report).c_str());
  }
  if (!options.json_path.empty()) {
    KVANT_TRY(write_file(options.json_path, curve_json(report)));
  }
  if (!options.html_path.empty()) {
    KVANT_TRY(write_file(options.html_path, curve_html(report)));
  }
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
  command->add_option("--idle", options->idle, "further chunks in the pool that only the prefix cache holds")
      ->check(at_least(0))
      ->capture_default_str();
  command->add_option("--slab-bytes", options->slab_bytes, "what memory is taken and given back by, a layer")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_flag("--no-plans", options->no_plans, "print the table alone, not the plans");
  add_report_options(*command, options->json_path, options->html_path);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
