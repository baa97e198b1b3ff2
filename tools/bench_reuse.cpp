// kvant bench reuse: agents that call one after another with a shared system prompt, each call served both ways in
// turn: from the prefix cache, and by feeding its whole prompt.
#include "bench_reuse.hpp"

#include <algorithm>
#include <cstdio>

#include "clock.hpp"
#include "engine/cache_attention.hpp"
#include "engine/sampler.hpp"
#include "engine/session.hpp"
#include "eval.hpp"
#include "html_report.hpp"
#include "progress.hpp"

namespace kvant::tools {

namespace {

struct ReuseOptions {
  HostOptions host;
  std::string model = "tiny.gguf";
  std::string text = "heldout.txt";
  std::string formats = "f32";
  ReuseShape shape;
  uint32_t repeats = 3;
  ReportOutput output;
};

constexpr uint32_t kBatch = 512;  // most tokens of a step

using Tokens = std::vector<uint32_t>;

// The words of the workflow: passages of a text, the first of them the system prompt.
class Script {
 public:
  Script(const EvalModel& model, const std::string& text, const ReuseShape& shape) : shape_(shape) {
    tokens_ = model.tokenizer.encode(text);
    tokens_.insert(tokens_.begin(), model.tokenizer.bos());
  }
  bool long_enough() const {
    return tokens_.size() >= shape_.system + uint64_t{shape_.rounds} * shape_.calls * shape_.question;
  }
  Tokens system() const { return {tokens_.begin(), tokens_.begin() + shape_.system}; }
  Tokens question(uint32_t round, uint32_t call) const {
    const size_t begin = shape_.system + (size_t{round} * shape_.calls + call) * shape_.question;
    return {tokens_.begin() + static_cast<std::ptrdiff_t>(begin),
            tokens_.begin() + static_cast<std::ptrdiff_t>(begin + shape_.question)};
  }

 private:
  ReuseShape shape_;
  Tokens tokens_;
};

struct Call {
  Tokens answer;
  double seconds = 0;
  double first_seconds = 0;
  uint32_t fed = 0;
};

// One request: opens its sequence, feeds what is not there yet, answers greedily.
Outcome<Call> serve(engine::Llama& model, engine::CacheAttention& cache, uint32_t slot, const Tokens& prompt,
                    uint32_t answer) {
  Call call;
  const Stopwatch watch;
  const auto reused = cache.open(slot, prompt);
  if (!reused.ok()) {
    return reused.failure();
  }
  const std::span<const uint32_t> all(prompt);
  engine::Session session(model, cache, true, kBatch, 0, slot);
  session.resume(all.first(*reused));
  std::vector<float> logits;
  KVANT_TRY(session.feed(all.subspan(*reused), logits));
  call.fed = static_cast<uint32_t>(prompt.size()) - *reused;
  call.answer.push_back(engine::argmax(logits));
  call.first_seconds = watch.seconds();
  while (call.answer.size() < answer) {
    const uint32_t token = call.answer.back();
    KVANT_TRY(session.feed({&token, 1}, logits));
    call.answer.push_back(engine::argmax(logits));
  }
  call.seconds = watch.seconds();
  return call;
}

struct WaySamples {
  std::vector<double> seconds, first_seconds;     // of each repeat
  std::vector<std::vector<double>> call_seconds;  // of each call, of each repeat
  uint64_t fed = 0;                               // of the last repeat

  ReuseWay medians() const {
    ReuseWay way{median(seconds), median(first_seconds), fed, {}};
    for (const auto& samples : call_seconds) {
      way.call_seconds.push_back(median(samples));
    }
    return way;
  }
};

// Both ways of one format pair.
class PairBench {
 public:
  PairBench(EvalModel& model, const Script& script, const ReuseShape& shape, const FormatPair& pair)
      : model_(model), script_(script), shape_(shape) {
    result_.pair = pair;
    const size_t calls = size_t{shape.rounds} * shape.calls;
    cached_samples_.call_seconds.resize(calls);
    fresh_samples_.call_seconds.resize(calls);
  }

  Outcome<void> open(const std::shared_ptr<Device>& device, const std::string& model_id) {
    const engine::AttentionShape attention = model_.llama.config().attention();
    // Room for every agent's prompt without sharing: nothing is evicted on either side.
    CacheShape cache = cache_shape(result_.pair, attention, uint64_t{shape_.calls} * model_.llama.config().context);
    cache.model_id = model_id;
    for (const bool prefixes : {false, true}) {
      cache.prefixes = prefixes;
      auto made = engine::CacheAttention::create(device, attention, cache, shape_.calls);
      if (!made.ok()) {
        return made.failure();
      }
      (prefixes ? cached_ : fresh_) = std::move(*made);
    }
    return {};
  }

  // The workflow from an empty cache. Without `counted` nothing is kept of it.
  Outcome<void> repeat(uint32_t rounds, bool counted, Progress& progress) {
    KVANT_TRY(clear());
    const auto before = cached_->cache().prefix_stats();
    if (!before.ok()) {
      return before.failure();
    }
    std::vector<Tokens> histories(shape_.calls, script_.system());
    Totals cached, fresh;
    uint64_t prompt_tokens = 0;
    for (uint32_t round = 0; round < rounds; ++round) {
      for (uint32_t agent = 0; agent < shape_.calls; ++agent) {
        Tokens& history = histories[agent];
        const Tokens question = script_.question(round, agent);
        history.insert(history.end(), question.begin(), question.end());
        prompt_tokens += history.size();
        const size_t index = size_t{round} * shape_.calls + agent;
        // Each way goes first as often as the other.
        Outcome<Call> one = Call{}, two = Call{};
        if (index % 2 == 0) {
          one = serve(model_.llama, *cached_, 0, history, shape_.answer);
          two = serve(model_.llama, *fresh_, 0, history, shape_.answer);
        } else {
          two = serve(model_.llama, *fresh_, 0, history, shape_.answer);
          one = serve(model_.llama, *cached_, 0, history, shape_.answer);
        }
        if (!one.ok() || !two.ok()) {
          return one.ok() ? two.failure() : one.failure();
        }
        // A prompt that was fed whole is the truth that both go on from.
        history.insert(history.end(), two->answer.begin(), two->answer.end());
        if (counted) {
          cached.add(*one);
          fresh.add(*two);
          cached_samples_.call_seconds[index].push_back(one->seconds);
          fresh_samples_.call_seconds[index].push_back(two->seconds);
          for (size_t i = 0; i < two->answer.size(); ++i) {
            ++result_.answer_tokens;
            result_.equal_tokens += one->answer[i] == two->answer[i] ? 1 : 0;
          }
        }
        progress.advance();
      }
    }
    if (!counted) {
      return {};
    }
    const auto after = cached_->cache().prefix_stats();
    if (!after.ok()) {
      return after.failure();
    }
    cached.keep(cached_samples_);
    fresh.keep(fresh_samples_);
    ratios_.push_back(fresh.seconds / cached.seconds);
    result_.prompt_tokens = prompt_tokens;
    result_.lookups = after->lookups - before->lookups;
    result_.hits = after->hits - before->hits;
    result_.lookup_tokens = after->lookup_tokens - before->lookup_tokens;
    result_.hit_tokens = after->hit_tokens - before->hit_tokens;
    prompts_ = histories;
    return {};
  }

  // What the agents' last prompts hold while all of them are open.
  Outcome<void> measure_held() {
    KVANT_TRY(clear());
    for (uint32_t agent = 0; agent < shape_.calls; ++agent) {
      ReuseHeld held{agent + 1, 0, 0, 0, 0};
      Tokens prompt = prompts_[agent];
      prompt.resize(prompt.size() - shape_.answer);
      for (engine::CacheAttention* cache : {cached_.get(), fresh_.get()}) {
        const auto served = serve(model_.llama, *cache, agent, prompt, 1);
        if (!served.ok()) {
          return served.failure();
        }
        const auto stats = cache->cache().stats();
        if (!stats.ok()) {
          return stats.failure();
        }
        (cache == cached_.get() ? held.shared_pages : held.apart_pages) = stats->used_pages;
        (cache == cached_.get() ? held.shared_bytes : held.apart_bytes) = stats->used_bytes;
      }
      result_.held.push_back(held);
    }
    return clear();
  }

  ReuseResult result() {
    result_.cached = cached_samples_.medians();
    result_.fresh = fresh_samples_.medians();
    result_.ratio = median(ratios_);
    result_.least_ratio = *std::min_element(ratios_.begin(), ratios_.end());
    result_.largest_ratio = *std::max_element(ratios_.begin(), ratios_.end());
    return result_;
  }

 private:
  struct Totals {
    double seconds = 0, first_seconds = 0;
    uint64_t fed = 0;
    void add(const Call& call) {
      seconds += call.seconds;
      first_seconds += call.first_seconds;
      fed += call.fed;
    }
    void keep(WaySamples& samples) const {
      samples.seconds.push_back(seconds);
      samples.first_seconds.push_back(first_seconds);
      samples.fed = fed;
    }
  };

  Outcome<void> clear() {
    KVANT_TRY(fresh_->truncate(0));
    KVANT_TRY(cached_->truncate(0));
    return cached_->cache().clear_prefixes();
  }

  EvalModel& model_;
  const Script& script_;
  ReuseShape shape_;
  std::unique_ptr<engine::CacheAttention> cached_, fresh_;
  WaySamples cached_samples_, fresh_samples_;
  std::vector<double> ratios_;
  std::vector<Tokens> prompts_;  // of each agent after the last round, its last answer included
  ReuseResult result_;
};

Outcome<ReuseShape> fit(ReuseShape shape, uint32_t context) {
  const uint64_t turns = uint64_t{shape.rounds} * (shape.question + shape.answer);
  if (shape.system == 0 && turns < context) {
    shape.system = static_cast<uint32_t>(context - turns);
  }
  if (shape.system == 0 || shape.longest() > context) {
    return Failure{
        (shape.system == 0 ? "a system prompt" : "a system prompt of " + std::to_string(shape.system) + " tokens") +
            std::string(" and ") + std::to_string(shape.rounds) + " rounds of " +
            std::to_string(shape.question + shape.answer) + " tokens are beyond the model's context of " +
            std::to_string(context),
        Exit::kUsage};
  }
  return shape;
}

// A format whose arithmetic is that of the model: there is nothing that could part the two ways but their rounding.
bool exact(const FormatPair& pair) { return pair.k.name == "f32" && pair.v.name == "f32"; }

Outcome<void> measure(EvalModel& model, const std::shared_ptr<Device>& device, const Script& script,
                      const std::vector<FormatPair>& pairs, const ReuseOptions& options, ReuseReport& report) {
  const ReuseShape& shape = report.shape;
  std::vector<PairBench> benches;
  for (const FormatPair& pair : pairs) {
    benches.emplace_back(model, script, shape, pair);
    KVANT_TRY(benches.back().open(device, options.model));
  }
  const uint32_t warm_rounds = std::min(shape.rounds, 2u);
  Progress progress(benches.size() * shape.calls * (uint64_t{options.repeats} * shape.rounds + warm_rounds), true);
  for (uint32_t repeat = 0; repeat <= options.repeats; ++repeat) {
    progress.phase(repeat == 0 ? "warm-up"
                               : "repeat " + std::to_string(repeat) + " of " + std::to_string(options.repeats));
    for (PairBench& bench : benches) {
      // The warm-up compiles pipelines and is not counted.
      KVANT_TRY(bench.repeat(repeat == 0 ? warm_rounds : shape.rounds, repeat > 0, progress));
    }
  }
  progress.clear();
  for (PairBench& bench : benches) {
    KVANT_TRY(bench.measure_held());
    report.results.push_back(bench.result());
  }
  return {};
}

Outcome<void> run(const ReuseOptions& options) {
  KVANT_TRY(options.output.check());
  auto device = open_device(options.host);
  if (!device.ok()) {
    return device.failure();
  }
  const auto pairs = parse_pairs(*(*device)->library(), options.formats);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  auto model = EvalModel::load(options.model);
  if (!model.ok()) {
    return model.failure();
  }
  const auto shape = fit(options.shape, model->llama.config().context);
  if (!shape.ok()) {
    return shape.failure();
  }
  const auto text = read_text(find_model_file(options.text));
  if (!text.ok()) {
    return text.failure();
  }
  const Script script(*model, *text, *shape);
  if (!script.long_enough()) {
    return bad_model(options.text + ": is too short for the system prompt and " +
                     std::to_string(uint64_t{shape->rounds} * shape->calls) + " questions");
  }
  ReuseReport report{(*device)->facts(), (*device)->library()->commit(), options.model, *shape, options.repeats, {}};
  KVANT_TRY(measure(*model, *device, script, *pairs, options, report));
  KVANT_TRY(options.output.write(report, reuse_text, reuse_json, reuse_html));
  for (const ReuseResult& result : report.results) {
    if (exact(result.pair) && result.equal_tokens != result.answer_tokens) {
      return Failure{"with f32 the prefix cache changed " + std::to_string(result.answer_tokens - result.equal_tokens) +
                     " of " + std::to_string(result.answer_tokens) + " tokens"};
    }
  }
  return {};
}

}  // namespace

void add_bench_reuse_command(CLI::App& bench) {
  auto options = std::make_shared<ReuseOptions>();
  CLI::App* command =
      bench.add_subcommand("reuse",
                           "agents with a shared prompt, with the prefix cache and without; exit code 1 if "
                           "their answers differ with f32");
  add_host_options(*command, options->host);
  command->add_option("--model", options->model, kModelHelp)->capture_default_str();
  command->add_option("--text", options->text, "text that prompts are cut from, looked for as the model is")
      ->capture_default_str();
  command->add_option("--formats", options->formats, kFormatsHelp)->capture_default_str();
  command->add_option("--rounds", options->shape.rounds, "rounds of the workflow")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--calls", options->shape.calls, "agents, each calling once a round")
      ->check(at_least(1))
      ->capture_default_str();
  command
      ->add_option("--system-tokens", options->shape.system,
                   "length of the shared prompt (default: what the model's context leaves)")
      ->check(at_least(1));
  command->add_option("--question-tokens", options->shape.question, "length of each call's question")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--answer-tokens", options->shape.answer, "length of each answer")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--repeats", options->repeats, "times that the workflow runs; medians are printed")
      ->check(at_least(1))
      ->capture_default_str();
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
