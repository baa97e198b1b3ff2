// kvant bench mass: what counting attention mass costs. The same attention with a cache that counts nothing and one
// that counts, one after the other in every round, so that a slow moment hits both; ratios are taken within rounds.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>

#include "bench.hpp"
#include "html_report.hpp"
#include "progress.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

struct MassOptions {
  HostOptions host;
  std::string formats = "f16,q8_0,q4_0";
  std::string decode_tokens = "1024,4096,16384";
  std::string prefill_tokens = "256,1024";
  BenchShape shape;
  uint32_t rounds = 7;
  double least_seconds = 0.05;  // a sample repeats the work for at least so long
  ReportOutput output;
};

// One work in both ways.
struct MassPair {
  std::string work;
  std::string format;
  uint32_t tokens = 0;
  BenchCase cases[2];  // without, with
  BenchSamples samples[2];
};

struct MassFigures {
  double without = 0, with = 0;           // medians, seconds
  double ratio = 0, least = 0, most = 0;  // of the rounds: the median one and the range
};

struct MassReport {
  DeviceFacts device;
  std::string commit;  // of the library
  BenchShape shape;
  uint32_t rounds = 0;
  bool timestamps = false;
  std::vector<MassPair> pairs;
};

MassFigures figures_of(const std::vector<double>& without, const std::vector<double>& with) {
  MassFigures figures{median(without), median(with)};
  std::vector<double> ratios;
  for (size_t round = 0; round < without.size(); ++round) {
    ratios.push_back(with[round] / without[round]);
  }
  figures.ratio = median(ratios);
  figures.least = *std::min_element(ratios.begin(), ratios.end());
  figures.most = *std::max_element(ratios.begin(), ratios.end());
  return figures;
}

MassFigures wall_figures(const MassPair& pair) { return figures_of(pair.samples[0].wall, pair.samples[1].wall); }
MassFigures device_figures(const MassPair& pair) { return figures_of(pair.samples[0].device, pair.samples[1].device); }

std::string introduction(const MassReport& report) {
  return "mass on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit +
         ". Attention of d " + std::to_string(report.shape.head_dim) + ", " + std::to_string(report.shape.kv_heads) +
         " KV heads, GQA " + std::to_string(report.shape.group) +
         " over a cache that counts no attention mass and over one that counts it with every query, in turn in each "
         "of " +
         std::to_string(report.rounds) + " rounds: medians, and the median and the range of the rounds' ratios. " +
         (report.timestamps ? "Device time by timestamps; wall time includes moving host data to the device and back."
                            : "The device has no timestamps: wall time.");
}

Table mass_table(const MassReport& report) {
  std::vector<std::string> columns = {"work", "format", "tokens"};
  if (report.timestamps) {
    columns.insert(columns.end(), {"device ms", "with mass", "ratio", "range"});
  }
  columns.insert(columns.end(), {"wall ms", "with mass", "ratio", "range"});
  Table table(columns);
  for (const MassPair& pair : report.pairs) {
    std::vector<std::string> cells = {pair.work, pair.format, std::to_string(pair.tokens)};
    const auto add = [&](const MassFigures& figures) {
      cells.insert(cells.end(), {significant(1e3 * figures.without), significant(1e3 * figures.with),
                                 fixed(figures.ratio, 2), fixed(figures.least, 2) + " - " + fixed(figures.most, 2)});
    };
    if (report.timestamps) {
      add(device_figures(pair));
    }
    add(wall_figures(pair));
    table.add(cells);
  }
  return table;
}

std::string mass_json(const MassReport& report) {
  Json json = {{"bench", "mass"},           {"device", report.device.name},      {"driver", report.device.driver},
               {"commit", report.commit},   {"head_dim", report.shape.head_dim}, {"kv_heads", report.shape.kv_heads},
               {"gqa", report.shape.group}, {"batch", report.shape.batch},       {"rounds", report.rounds},
               {"results", Json::array()}};
  for (const MassPair& pair : report.pairs) {
    Json entry = {{"work", pair.work}, {"format", pair.format}, {"tokens", pair.tokens}};
    const auto add = [&](const std::string& clock, const MassFigures& figures) {
      entry[clock] = {{"seconds_without", figures.without},
                      {"seconds_with", figures.with},
                      {"ratio", figures.ratio},
                      {"least_ratio", figures.least},
                      {"most_ratio", figures.most}};
    };
    if (report.timestamps) {
      add("device", device_figures(pair));
    }
    add("wall", wall_figures(pair));
    json["results"].push_back(entry);
  }
  return json.dump(2) + "\n";
}

std::string mass_html(const MassReport& report) {
  HtmlReport page("kvant bench mass");
  page.paragraph(introduction(report));
  page.table(mass_table(report));
  BarPlot ratios{"Time with attention mass counted, to without", "ratio", {}, {{"ratio", {}}}};
  for (const MassPair& pair : report.pairs) {
    ratios.categories.push_back(pair.work + " · " + pair.format + " · " + std::to_string(pair.tokens) + " tokens");
    ratios.series[0].second.push_back((report.timestamps ? device_figures(pair) : wall_figures(pair)).ratio);
  }
  page.plot(ratios);
  return page.render_page();
}

Outcome<void> measure(Device& device, const MassOptions& options, MassReport& report) {
  Progress progress((uint64_t{options.rounds} + 1) * report.pairs.size(), true);
  for (MassPair& pair : report.pairs) {
    progress.phase("warm-up: " + pair.work + ", " + pair.format + ", " + std::to_string(pair.tokens) + " tokens");
    for (size_t i = 0; i < 2; ++i) {
      KVANT_TRY(warm_up(pair.cases[i], options.least_seconds, pair.samples[i]));
    }
    progress.advance();
  }
  for (uint32_t round = 0; round < options.rounds; ++round) {
    progress.phase("round " + std::to_string(round + 1) + " of " + std::to_string(options.rounds));
    for (MassPair& pair : report.pairs) {
      for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t which = (round + i) % 2;  // neither is always the one that finds warm caches
        KVANT_TRY(sample(device, pair.cases[which], pair.samples[which]));
      }
      progress.advance();
    }
  }
  report.timestamps = !report.pairs.empty() && report.pairs[0].samples[0].device[0] > 0;
  return {};
}

Outcome<void> run(const MassOptions& options) {
  KVANT_TRY(options.output.check());
  HostOptions host = options.host;
  host.device.profiling = true;
  auto opened = open_device(host);
  if (!opened.ok()) {
    return opened.failure();
  }
  const auto formats = parse_pairs(*(*opened)->library(), options.formats);
  if (!formats.ok()) {
    return formats.failure();
  }
  MassReport report{(*opened)->facts(), (*opened)->library()->commit(), options.shape, options.rounds, false, {}};
  for (const bool decode : {true, false}) {
    const auto counts = parse_counts("token count", decode ? options.decode_tokens : options.prefill_tokens);
    if (!counts.ok()) {
      return counts.failure();
    }
    for (const FormatPair& format : *formats) {
      for (const uint32_t tokens : *counts) {
        MassPair pair{decode ? "decode" : "prefill", format.name(), tokens, {}, {}};
        for (const bool mass : {false, true}) {
          BenchShape shape = options.shape;
          shape.tokens = tokens;
          shape.mass = mass;
          auto made = (decode ? decode_case : prefill_case)(*opened, format, shape);
          if (!made.ok()) {
            return made.failure();
          }
          pair.cases[mass ? 1 : 0] = std::move(*made);
        }
        report.pairs.push_back(std::move(pair));
      }
    }
  }
  KVANT_TRY(measure(**opened, options, report));
  KVANT_TRY(options.output.write(report, [](const auto& r) { return introduction(r) + "\n\n" + mass_table(r).render(); }, mass_json, mass_html));
  return {};
}

}  // namespace

void add_bench_mass_command(CLI::App& bench) {
  auto options = std::make_shared<MassOptions>();
  CLI::App* command = bench.add_subcommand("mass", "what counting attention mass adds to decode and prefill");
  add_host_options(*command, options->host);
  command->add_option("--formats", options->formats, kFormatsHelp)->capture_default_str();
  command->add_option("--decode-tokens", options->decode_tokens, "tokens that decode attends to, comma-separated")
      ->capture_default_str();
  command->add_option("--prefill-tokens", options->prefill_tokens, "tokens of prompts, comma-separated")
      ->capture_default_str();
  command->add_option("--head-dim", options->shape.head_dim, "head dimension")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--kv-heads", options->shape.kv_heads, "KV heads")->check(at_least(1))->capture_default_str();
  command->add_option("--gqa", options->shape.group, "query heads that share a KV head")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--batch", options->shape.batch, "sequences")->check(at_least(1))->capture_default_str();
  command->add_option("--rounds", options->rounds, "interleaved rounds")->check(at_least(1))->capture_default_str();
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
