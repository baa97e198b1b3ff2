// kvant bench generate: the speed of the next token with the cache beside recomputing everything without, over lengths.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>

#include "bench.hpp"
#include "clock.hpp"
#include "engine/cache_attention.hpp"
#include "engine/plain_attention.hpp"
#include "engine/sampler.hpp"
#include "engine/session.hpp"
#include "engine/tokenizer.hpp"
#include "html_report.hpp"
#include "progress.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

struct GenerateBenchOptions {
  HostOptions host;
  std::string model = "tiny.gguf";
  std::string formats = "q8_0/q4_0";
  std::string lengths = "32,64,128,256,512,960";
  uint32_t steps = 16;       // tokens a sample writes with the cache
  uint32_t plain_steps = 2;  // and without
  uint32_t rounds = 3;
  ReportOutput output;
};

// Seconds a token, at a length that was already reached.
struct LengthResult {
  uint32_t length = 0;
  double plain_seconds = 0;
  std::vector<double> cached_seconds;  // of each format pair
};

struct GenerateReport {
  DeviceFacts device;
  std::string commit;  // of the library
  std::string model;
  std::vector<FormatPair> pairs;
  std::vector<LengthResult> lengths;
  uint32_t rounds = 0;
};

// Greedy continuation of some text of the wanted length; returns seconds a token.
Outcome<double> time_tokens(engine::Session& session, const std::vector<uint32_t>& prompt, uint32_t steps) {
  std::vector<float> logits;
  KVANT_TRY(session.feed(prompt, logits));
  const Stopwatch watch;
  for (uint32_t i = 0; i < steps; ++i) {
    const uint32_t token = engine::argmax(logits);
    KVANT_TRY(session.feed({&token, 1}, logits));
  }
  return watch.seconds() / steps;
}

std::vector<uint32_t> prompt_of(const engine::Tokenizer& tokenizer, uint32_t length) {
  static const std::string kText = "And God said, Let there be light: and there was light. ";
  std::string text;
  while (text.size() < length) {
    text += kText;
  }
  std::vector<uint32_t> tokens = tokenizer.encode(text);
  tokens.insert(tokens.begin(), tokenizer.bos());
  tokens.resize(length);
  return tokens;
}

Table result_table(const GenerateReport& report) {
  std::vector<std::string> columns = {"length", "no cache, tokens/s"};
  for (const FormatPair& pair : report.pairs) {
    columns.push_back(pair.name() + ", tokens/s");
    columns.push_back("speed-up");
  }
  Table table(columns);
  for (const LengthResult& result : report.lengths) {
    std::vector<std::string> cells = {std::to_string(result.length), significant(1 / result.plain_seconds)};
    for (const double seconds : result.cached_seconds) {
      cells.push_back(significant(1 / seconds));
      cells.push_back(significant(result.plain_seconds / seconds) + " x");
    }
    table.add(cells);
  }
  return table;
}

std::string introduction(const GenerateReport& report) {
  return report.model + " on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit +
         ". Time of the next token at a length already reached, medians of " + std::to_string(report.rounds) +
         " interleaved rounds: through the cache on the device, and without a cache, where the CPU computes every "
         "token again.";
}

std::string html_page(const GenerateReport& report) {
  HtmlReport page("kvant bench generate");
  page.paragraph(introduction(report));
  XyPlot rate{"Tokens per second by length", "tokens in the sequence", "tokens per second", true, false, true, {}};
  XyPlot gain{
      "Speed-up of the cache", "tokens in the sequence", "times faster than recomputing", true, false, false, {}};
  PlotSeries plain{"no cache", {}, {}};
  for (const LengthResult& result : report.lengths) {
    plain.points.emplace_back(result.length, 1 / result.plain_seconds);
  }
  for (size_t i = 0; i < report.pairs.size(); ++i) {
    PlotSeries cached{report.pairs[i].name(), {}, {}};
    PlotSeries faster = cached;
    for (const LengthResult& result : report.lengths) {
      cached.points.emplace_back(result.length, 1 / result.cached_seconds[i]);
      faster.points.emplace_back(result.length, result.plain_seconds / result.cached_seconds[i]);
    }
    rate.series.push_back(cached);
    gain.series.push_back(faster);
  }
  rate.series.push_back(plain);
  page.plot(gain);
  page.plot(rate);
  page.table(result_table(report));
  return page.render_page();
}

std::string json_text(const GenerateReport& report) {
  Json json = {{"bench", "generate"},     {"device", report.device.name}, {"driver", report.device.driver},
               {"commit", report.commit}, {"model", report.model},        {"rounds", report.rounds},
               {"results", Json::array()}};
  for (const LengthResult& result : report.lengths) {
    Json one = {{"length", result.length}, {"plain_seconds_per_token", result.plain_seconds}};
    for (size_t i = 0; i < report.pairs.size(); ++i) {
      one["cached"].push_back({{"k", report.pairs[i].k.name},
                               {"v", report.pairs[i].v.name},
                               {"seconds_per_token", result.cached_seconds[i]},
                               {"speed_up", result.plain_seconds / result.cached_seconds[i]}});
    }
    json["results"].push_back(one);
  }
  return json.dump(2) + "\n";
}

Outcome<void> measure(const GenerateBenchOptions& options, engine::Llama& model, const engine::Tokenizer& tokenizer,
                      const std::shared_ptr<Device>& device, const std::vector<uint32_t>& lengths,
                      GenerateReport& report) {
  const engine::AttentionShape shape = model.config().attention();
  engine::PlainAttention plain(shape);
  std::vector<std::unique_ptr<engine::CacheAttention>> caches;
  for (const FormatPair& pair : report.pairs) {
    auto cache = engine::CacheAttention::create(device, shape, cache_shape(pair, shape, model.config().context), 1);
    if (!cache.ok()) {
      return cache.failure();
    }
    caches.push_back(std::move(*cache));
  }
  const auto run_plain = [&](uint32_t length, uint32_t steps) {
    engine::Session session(model, plain, false);
    return time_tokens(session, prompt_of(tokenizer, length), steps);
  };
  const auto run_cached = [&](engine::CacheAttention& cache, uint32_t length, uint32_t steps) -> Outcome<double> {
    KVANT_TRY(cache.truncate(0));
    engine::Session session(model, cache, true);
    return time_tokens(session, prompt_of(tokenizer, length), steps);
  };

  Progress progress(lengths.size() * (options.rounds + 1), true);
  std::vector<std::vector<double>> plain_samples(lengths.size());
  std::vector<std::vector<std::vector<double>>> cached_samples(lengths.size(),
                                                               {report.pairs.size(), std::vector<double>()});
  // Round 0 compiles pipelines and is not counted.
  for (uint32_t round = 0; round <= options.rounds; ++round) {
    progress.phase(round == 0 ? "warm-up" : "round " + std::to_string(round) + " of " + std::to_string(options.rounds));
    for (size_t i = 0; i < lengths.size(); ++i) {
      for (size_t p = 0; p < caches.size(); ++p) {
        const auto seconds = run_cached(*caches[p], lengths[i], round == 0 ? 1 : options.steps);
        if (!seconds.ok()) {
          return seconds.failure();
        }
        if (round > 0) {
          cached_samples[i][p].push_back(*seconds);
        }
      }
      if (round > 0) {
        const auto seconds = run_plain(lengths[i], options.plain_steps);
        if (!seconds.ok()) {
          return seconds.failure();
        }
        plain_samples[i].push_back(*seconds);
      }
      progress.advance();
    }
  }
  for (size_t i = 0; i < lengths.size(); ++i) {
    LengthResult result{lengths[i], median(plain_samples[i]), {}};
    for (const auto& samples : cached_samples[i]) {
      result.cached_seconds.push_back(median(samples));
    }
    report.lengths.push_back(result);
  }
  return {};
}

Outcome<void> run(const GenerateBenchOptions& options) {
  KVANT_TRY(options.output.check());
  auto device = open_device(options.host);
  if (!device.ok()) {
    return device.failure();
  }
  const auto file = engine::GgufFile::load(find_model_file(options.model));
  if (!file.ok()) {
    return file.failure();
  }
  const auto tokenizer = engine::Tokenizer::from(*file);
  if (!tokenizer.ok()) {
    return tokenizer.failure();
  }
  auto model = engine::Llama::load(*file);
  if (!model.ok()) {
    return model.failure();
  }
  const auto pairs = parse_pairs(*(*device)->library(), options.formats);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  const auto lengths = parse_counts("length", options.lengths);
  if (!lengths.ok()) {
    return lengths.failure();
  }
  const uint32_t longest = *std::max_element(lengths->begin(), lengths->end());
  if (longest + std::max(options.steps, options.plain_steps) > model->config().context) {
    return Failure{"the length (" + std::to_string(longest) + ") and the tokens of a sample (" +
                       std::to_string(std::max(options.steps, options.plain_steps)) +
                       ") are beyond the model's context of " + std::to_string(model->config().context),
                   Exit::kUsage};
  }
  GenerateReport report{(*device)->facts(), (*device)->library()->commit(), options.model, *pairs, {}, options.rounds};
  KVANT_TRY(measure(options, *model, *tokenizer, *device, *lengths, report));
  KVANT_TRY(options.output.write(report, [](const auto& r) { return introduction(r) + "\n\n" + result_table(r).render(); }, json_text, html_page));
  return {};
}

}  // namespace

void add_bench_generate_command(CLI::App& bench) {
  auto options = std::make_shared<GenerateBenchOptions>();
  CLI::App* command = bench.add_subcommand("generate", "next token with the cache, and recomputing without it");
  add_host_options(*command, options->host);
  command->add_option("--model", options->model, kModelHelp)->capture_default_str();
  command->add_option("--formats", options->formats, kFormatsHelp)->capture_default_str();
  command->add_option("--lengths", options->lengths, "tokens already in the sequence, comma-separated")
      ->capture_default_str();
  command->add_option("--steps", options->steps, "tokens a sample writes with the cache")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--plain-steps", options->plain_steps, "tokens a sample writes without")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--rounds", options->rounds, "interleaved rounds")->check(at_least(1))->capture_default_str();
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
