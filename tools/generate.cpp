// kvant generate: text from a model whose keys and values live in the plugin's quantized pool, with a table of what it
// took.
#include <cstdio>

#include "clock.hpp"
#include "commands.hpp"
#include "engine/cache_attention.hpp"
#include "engine/llama.hpp"
#include "engine/plain_attention.hpp"
#include "engine/sampler.hpp"
#include "engine/session.hpp"
#include "engine/tokenizer.hpp"
#include "generate_draft.hpp"
#include "generate_stats.hpp"
#include "table.hpp"

namespace kvant::tools {

namespace {

struct GenerateOptions {
  HostOptions host;
  std::string model = "tiny.gguf";
  std::string prompt = "And it came to pass in those days, that";
  uint32_t tokens = 200;
  std::string k_format = "q8_0";
  std::string v_format = "q4_0";
  engine::SamplerOptions sampler{0.7f, 40, 0.95f, 1};
  bool no_cache = false;
  DraftOptions draft;
  GenerateStatsOptions stats;
};

// What a phase (prefill, decode) cost.
struct Phase {
  uint64_t tokens = 0;
  double seconds = 0;
  engine::AttentionTimes attention;
  double device_seconds = 0;

  std::string rate() const {
    return seconds > 0 ? significant(static_cast<double>(tokens) / seconds) + " tokens/s" : "-";
  }
  double attention_share() const { return seconds > 0 ? attention.run_seconds / seconds : 0; }
};

double seconds_of(const std::vector<ProfileEntry>& profile) {
  double sum = 0;
  for (const ProfileEntry& entry : profile) {
    sum += entry.microseconds * 1e-6;
  }
  return sum;
}

class Generation {
 public:
  explicit Generation(const GenerateOptions& options) : options_(options) {}

  Outcome<void> run() {
    KVANT_TRY(load());
    KVANT_TRY(open());
    engine::Session session(*model_, *attention_, cache_ != nullptr);
    if (!options_.stats.path.empty()) {
      auto stats = GenerateStats::open(options_.stats, cache_->cache());
      if (!stats.ok()) {
        return stats.failure();
      }
      stats_ = std::move(*stats);
    }
    if (cache_ != nullptr) {
      KVANT_TRY(warm_up(session));
    }
    if (stats_ != nullptr) {
      stats_->mark();  // as the warm-up left the cache: the run is what differs from it
    }
    if (drafted_ != nullptr) {
      return run_drafted();
    }
    KVANT_TRY(write(session));
    const Outcome<void> logged = stats_ != nullptr ? stats_->finish() : Outcome<void>();
    std::printf("\n\n%s", summary(session.length()).render().c_str());
    return logged;
  }

 private:
  Outcome<void> load() {
    const auto file = engine::GgufFile::load(find_model_file(options_.model));
    if (!file.ok()) {
      return file.failure();
    }
    auto tokenizer = engine::Tokenizer::from(*file);
    if (!tokenizer.ok()) {
      return tokenizer.failure();
    }
    tokenizer_ = std::make_unique<engine::Tokenizer>(std::move(*tokenizer));
    auto model = engine::Llama::load(*file);
    if (!model.ok()) {
      return model.failure();
    }
    model_ = std::make_unique<engine::Llama>(std::move(*model));
    prompt_ = tokenizer_->encode(options_.prompt);
    prompt_.insert(prompt_.begin(), tokenizer_->bos());
    const uint32_t context = model_->config().context;
    if (prompt_.size() >= context) {
      return Failure{"the prompt (" + std::to_string(prompt_.size()) + " tokens) does not fit the model's context of " +
                         std::to_string(context),
                     Exit::kUsage};
    }
    budget_ = std::min<uint32_t>(options_.tokens, context - static_cast<uint32_t>(prompt_.size()));
    return {};
  }

  Outcome<void> open() {
    if (options_.no_cache) {
      attention_ = std::make_unique<engine::PlainAttention>(model_->config().attention());
      return {};
    }
    HostOptions host = options_.host;
    host.device.profiling = true;
    auto device = open_device(host);
    if (!device.ok()) {
      return device.failure();
    }
    device_ = *device;
    const auto k = device_->library()->format(options_.k_format);
    if (!k.ok()) {
      return k.failure();
    }
    const auto v = device_->library()->format(options_.v_format);
    if (!v.ok()) {
      return v.failure();
    }
    uint64_t capacity = prompt_.size() + budget_;
    if (!options_.draft.draft.empty()) {
      auto drafted = DraftedGeneration::create(options_.draft, *model_, device_, capacity, tokenizer_->eos());
      if (!drafted.ok()) {
        return drafted.failure();
      }
      drafted_ = std::move(*drafted);
      capacity += drafted_->extra_tokens();
    }
    auto cache = engine::CacheAttention::create(device_, model_->config().attention(), k->id, v->id, capacity, 1);
    if (!cache.ok()) {
      return cache.failure();
    }
    cache_ = cache->get();
    if (drafted_ != nullptr) {
      cache_->make_invariant();  // chains then are the target's own text to the bit
    }
    attention_ = std::move(*cache);
    return {};
  }

  // Drivers compile pipelines at their first use: that is start-up time, not speed.
  Outcome<void> warm_up(engine::Session& session) {
    const Stopwatch watch;
    std::vector<float> logits;
    KVANT_TRY(session.feed(prompt_, logits));
    if (budget_ > 0) {
      const uint32_t token = engine::argmax(logits);
      KVANT_TRY(session.feed({&token, 1}, logits));
    }
    session.reset();
    KVANT_TRY(cache_->truncate(0));
    if (drafted_ != nullptr) {
      // Twice the tokens of a step: trees and chains of every length that the end of the text leaves.
      const auto tried = drafted_->write(
          *cache_, prompt_, std::min(budget_, 2 * (options_.draft.tokens + 1)), [] {}, [](uint32_t) {});
      if (!tried.ok()) {
        return tried.failure();
      }
      KVANT_TRY(cache_->truncate(0));
    }
    cache_->take_times();
    device_->take_profile();
    warm_up_seconds_ = watch.seconds();
    return {};
  }

  void end_prefill(Stopwatch& watch) {
    end_phase(prefill_, prompt_.size(), watch.seconds());
    if (stats_ != nullptr) {
      stats_->mark();
    }
    watch.restart();
  }

  void print_token(uint32_t token) {
    print(tokenizer_->decode(token));
    if (stats_ != nullptr) {
      stats_->token();
    }
  }

  void end_phase(Phase& phase, uint64_t tokens, double seconds) {
    phase.tokens = tokens;
    phase.seconds = seconds;
    if (cache_ != nullptr) {
      phase.attention = cache_->take_times();
      phase.device_seconds = seconds_of(device_->take_profile());
    }
  }

  void print(const std::string& text) const {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  Outcome<void> run_drafted() {
    print(options_.prompt);
    Stopwatch watch;
    const auto text = drafted_->write(
        *cache_, prompt_, budget_, [&] { end_prefill(watch); }, [&](uint32_t token) { print_token(token); });
    if (!text.ok()) {
      return text.failure();
    }
    end_phase(decode_, text->tokens.empty() ? 0 : text->tokens.size() - 1, watch.seconds());
    const Outcome<void> logged = stats_ != nullptr ? stats_->finish() : Outcome<void>();
    Table table = summary(cache_->length(0));
    drafted_->describe(table, *text);
    Outcome<void> equal;
    if (options_.draft.compare) {
      const auto alone = drafted_->write_alone(*cache_, prompt_, budget_);
      if (!alone.ok()) {
        return alone.failure();
      }
      equal = check_equal(text->tokens, alone->tokens);
      table.add({"without draft", alone->rate() + (equal.ok() ? "; the same tokens" : "; other tokens")});
    }
    std::printf("\n\n%s", table.render().c_str());
    return equal.ok() ? logged : equal;
  }

  Outcome<void> write(engine::Session& session) {
    print(options_.prompt);
    std::vector<float> logits;
    Stopwatch watch;
    KVANT_TRY(session.feed(prompt_, logits));
    end_prefill(watch);
    engine::Sampler sampler(options_.sampler);
    uint32_t written = 0;
    uint64_t computed = 0;
    while (written < budget_) {
      const uint32_t token = sampler.next(logits);
      if (token == tokenizer_->eos()) {
        break;
      }
      print_token(token);
      ++written;
      if (written < budget_) {
        KVANT_TRY(session.feed({&token, 1}, logits));
        ++computed;
      }
    }
    end_phase(decode_, computed, watch.seconds());
    return {};
  }

  Table summary(uint64_t held_tokens) {
    Table table({"", ""});
    const auto& config = model_->config();
    const auto bytes_at = [&](uint32_t bits) {
      return bytes_text(static_cast<double>(config.kv_bytes_per_token(bits) * held_tokens));
    };
    if (cache_ == nullptr) {
      table.add({"cache", "none: every token is computed again for each new one, on the CPU"});
    } else {
      table.add({"device", device_text(*device_)});
      table.add({"driver", device_->facts().driver});
      table.add({"formats", "K " + options_.k_format + ", V " + options_.v_format});
      table.add({"first use", significant(warm_up_seconds_) + " s (pipelines compiled, not counted below)"});
    }
    const bool drafted = drafted_ != nullptr;
    table.add({"prefill", std::to_string(prefill_.tokens) + " tokens, " + prefill_.rate() +
                              (drafted ? ", read by the draft as well" : "")});
    table.add({"decode", std::to_string(decode_.tokens) + " tokens, " + decode_.rate()});
    if (cache_ != nullptr) {
      const auto stats = cache_->cache().stats();
      if (stats.ok()) {
        table.add({"KV held", bytes_text(static_cast<double>(stats->used_bytes)) + " for " +
                                  std::to_string(stats->sequence_tokens) + " tokens (f32 " + bytes_at(32) + ", f16 " +
                                  bytes_at(16) + ")"});
      }
      table.add({"attention", percent(prefill_.attention_share()) + " of prefill's and " +
                                  percent(decode_.attention_share()) + " of decode's wall time (" +
                                  (drafted ? "the target's " : "") + "calls of step_run)"});
      if (prefill_.device_seconds + decode_.device_seconds > 0) {
        table.add({"on the device", percent(prefill_.device_seconds / prefill_.seconds) + " of prefill's and " +
                                        percent(decode_.device_seconds / decode_.seconds) +
                                        " of decode's wall time (timestamps)"});
      }
      if (stats_ != nullptr) {
        stats_->describe(table);
      }
    }
    return table;
  }

  const GenerateOptions& options_;
  std::unique_ptr<engine::Tokenizer> tokenizer_;
  std::unique_ptr<engine::Llama> model_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<engine::Attention> attention_;
  engine::CacheAttention* cache_ = nullptr;  // attention_ as the cached kind, or null
  std::unique_ptr<DraftedGeneration> drafted_;
  std::unique_ptr<GenerateStats> stats_;
  std::vector<uint32_t> prompt_;
  uint32_t budget_ = 0;
  double warm_up_seconds_ = 0;
  Phase prefill_;
  Phase decode_;
};

}  // namespace

void add_generate_command(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "generate text through the quantized cache");
  add_host_options(*command, options->host);
  command->add_option("--model", options->model, kModelHelp)->capture_default_str();
  command->add_option("--prompt", options->prompt, "text to continue")->capture_default_str();
  command->add_option("--tokens", options->tokens, "tokens to write, as far as the model's context reaches")
      ->check(at_least(0))
      ->capture_default_str();
  command->add_option("--k-format", options->k_format, "format of the keys; `kvant info` lists the formats")
      ->capture_default_str();
  command->add_option("--v-format", options->v_format, "format of the values")->capture_default_str();
  CLI::Option* temperature = command
                                 ->add_option("--temperature", options->sampler.temperature,
                                              "divides the logits before sampling; 0: greedy, as always with --draft")
                                 ->check(CLI::Range(0.0f, 100.0f))
                                 ->capture_default_str();
  command->add_option("--top-k", options->sampler.top_k, "sample among so many of the most probable tokens; 0: all")
      ->check(at_least(0))
      ->capture_default_str();
  command
      ->add_option("--top-p", options->sampler.top_p,
                   "sample among the most probable tokens of so much probability; 1: all")
      ->check(CLI::Range(0.0f, 1.0f))
      ->capture_default_str();
  command->add_option("--seed", options->sampler.seed, "seed of the sampler: the same seed writes the same text")
      ->check(at_least(0))
      ->capture_default_str();
  CLI::Option* no_cache =
      command->add_flag("--no-cache", options->no_cache, "recompute every token instead, without the plugin");
  add_draft_options(*command, options->draft);
  command->get_option("--draft")->excludes(no_cache);
  add_generate_stats_options(*command, options->stats);
  command->get_option("--stats-log")->excludes(no_cache);
  command->callback([options, temperature] {
    if (!options->draft.draft.empty() && temperature->count() > 0 && options->sampler.temperature > 0.0f) {
      finish(Failure{"the temperature (" + significant(static_cast<double>(options->sampler.temperature)) +
                         ") is not 0, and --draft writes greedy text only",
                     Exit::kUsage});
      return;
    }
    Generation generation(*options);
    finish(generation.run());
  });
}

}  // namespace kvant::tools
