// kvant cool-curve: what cooling costs. The first half of each chunk of text is put into a cache, V of its pages is cooled to a share of the
// bytes, and the second half is read on over it; the pages of least attention mass first, and, to compare, the oldest first.
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdio>

#include "commands.hpp"
#include "eval.hpp"
#include "html_report.hpp"
#include "memory_curve_run.hpp"
#include "progress.hpp"
#include "table.hpp"

namespace kvant::tools {

namespace {

struct CoolOptions {
  HostOptions host;
  std::string model = "tiny.gguf";
  std::string text = "heldout.txt";
  std::string format = "t4+cr";
  std::string cold = "t3,t2";
  std::string targets = "100,98,96,94,92,90,88,86,84,82";
  uint32_t chunks = 8;
  uint32_t slab_bytes = 4096;
  ReportOutput output;
};

constexpr CoolOrder kOrders[] = {CoolOrder::kMass, CoolOrder::kAge};
constexpr const char* kOrderNames[] = {"least mass first", "oldest first"};

struct CoolFigures {
  uint32_t percent = 0;
  bool met = false;
  uint64_t bytes_before = 0, bytes_after = 0, pages = 0;  // of all chunks
  double perplexity = 0, kl_mean = 0;
};

struct CoolReport {
  CurveReport base;
  FormatPair pair;
  std::string cold;
  std::vector<CoolFigures> curves[2];  // by order
};

std::string introduction(const CoolReport& report) {
  const CurveReport& base = report.base;
  return base.model + " on " + base.device.name + ", " + base.device.driver + ", commit " + base.commit + ". A cache of " +
         report.pair.name() + ", in slabs of " + std::to_string(base.slab_bytes) + " bytes a layer, holds the first " +
         std::to_string(base.context / 2) + " tokens of a chunk of " + base.text +
         ", with the masses of all queries. Its pages cool to a share of its bytes, V to " + report.cold +
         " one after the other, but for the first 4 and the last 64 tokens. Then the second half is read on over them, in the wide "
         "format: perplexity, and divergence from the same cache without cooling, of " +
         std::to_string(uint64_t{base.chunks} * base.scored) + " tokens of " + std::to_string(base.chunks) + " chunks.";
}

Table figures_table(const CoolReport& report) {
  Table table({"order", "target", "bytes left", "pages cooled", "PPL", "KL mean"});
  for (const CoolOrder order : kOrders) {
    const auto index = static_cast<size_t>(order);
    for (const CoolFigures& point : report.curves[index]) {
      std::vector<std::string> cells = {kOrderNames[index], std::to_string(point.percent) + " %"};
      if (point.met) {
        cells.insert(cells.end(), {fixed(100.0 * static_cast<double>(point.bytes_after) / static_cast<double>(point.bytes_before), 1) + " %",
                                   std::to_string(point.pages), fixed(point.perplexity, 4), significant(point.kl_mean)});
      } else {
        cells.insert(cells.end(), {"cannot be met", "-", "-", "-"});
      }
      table.add(cells);
    }
  }
  return table;
}

std::string cool_json(const CoolReport& report) {
  nlohmann::ordered_json json = {{"command", "cool-curve"},
                                 {"device", report.base.device.name},
                                 {"driver", report.base.device.driver},
                                 {"commit", report.base.commit},
                                 {"model", report.base.model},
                                 {"format", report.pair.name()},
                                 {"cold", report.cold},
                                 {"scored_tokens", uint64_t{report.base.chunks} * report.base.scored}};
  for (const CoolOrder order : kOrders) {
    const auto index = static_cast<size_t>(order);
    for (const CoolFigures& point : report.curves[index]) {
      nlohmann::ordered_json entry = {{"order", kOrderNames[index]}, {"percent", point.percent}, {"met", point.met}};
      if (point.met) {
        entry.update({{"bytes_before", point.bytes_before},
                      {"bytes_after", point.bytes_after},
                      {"pages", point.pages},
                      {"perplexity", point.perplexity},
                      {"kl_mean", point.kl_mean}});
      }
      json["points"].push_back(entry);
    }
  }
  return json.dump(2) + "\n";
}

std::string cool_html(const CoolReport& report) {
  HtmlReport page("kvant cool-curve");
  page.paragraph(introduction(report));
  XyPlot plot{"Divergence by bytes left", "percent of the bytes before", "KL divergence, nats a token", true, false, false, {}};
  for (const CoolOrder order : kOrders) {
    const auto index = static_cast<size_t>(order);
    PlotSeries series{kOrderNames[index], {}, {}};
    for (const CoolFigures& point : report.curves[index]) {
      if (point.met) {
        series.points.emplace_back(100.0 * static_cast<double>(point.bytes_after) / static_cast<double>(point.bytes_before), point.kl_mean);
      }
    }
    if (!series.points.empty()) {
      plot.series.push_back(series);
    }
  }
  if (!plot.series.empty()) {
    page.plot(plot);
  }
  page.table(figures_table(report));
  return page.render_page();
}

Outcome<CoolFigures> measure(EvalModel& model, const TextEval& text, const std::shared_ptr<Device>& device, const CoolReport& report,
                             const std::vector<uint32_t>& formats, const std::vector<std::vector<float>>& truth, CoolOrder order,
                             uint32_t percent, Progress& progress) {
  CoolFigures figures;
  figures.percent = percent;
  figures.met = true;
  double sum = 0, divergence = 0;
  for (uint32_t chunk = 0; chunk < report.base.chunks; ++chunk, progress.advance()) {
    if (!figures.met) {
      continue;  // every chunk holds as many pages as the one that could not
    }
    LimitRun run(model, text, report.base);
    KVANT_TRY(run.fill_half(device, report.pair, chunk));
    const auto cooled = run.cool(percent, formats, order);
    if (!cooled.ok()) {
      return cooled.failure();
    }
    figures.met = cooled->met;
    if (!figures.met) {
      continue;
    }
    figures.bytes_before += cooled->bytes_before;
    figures.bytes_after += cooled->bytes_after;
    figures.pages += cooled->pages;
    std::vector<float> rows;
    KVANT_TRY(run.read_second_half(rows));
    sum += run.negative_log(report.base.context / 2, rows);
    divergence += run.divergence(truth[chunk], rows);
  }
  const double scored = static_cast<double>(report.base.chunks) * report.base.scored;
  figures.perplexity = std::exp(sum / scored);
  figures.kl_mean = divergence / scored;
  return figures;
}

Outcome<void> run(const CoolOptions& options) {
  KVANT_TRY(options.output.check());
  auto device = open_device(options.host);
  if (!device.ok()) {
    return device.failure();
  }
  const Library& library = *(*device)->library();
  const auto pairs = parse_pairs(library, options.format);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  if (pairs->size() != 1) {
    return Failure{"--format (" + options.format + ") is not one format or pair", Exit::kUsage};
  }
  const auto cold = parse_pairs(library, options.cold);
  if (!cold.ok()) {
    return cold.failure();
  }
  const auto targets = parse_counts("target", options.targets);
  if (!targets.ok()) {
    return targets.failure();
  }
  auto model = EvalModel::load(options.model);
  if (!model.ok()) {
    return model.failure();
  }
  const auto text = TextEval::load(find_model_file(options.text), *model, options.chunks);
  if (!text.ok()) {
    return text.failure();
  }
  CoolReport report;
  report.base.device = (*device)->facts();
  report.base.commit = library.commit();
  report.base.model = options.model;
  report.base.text = options.text;
  report.base.chunks = std::min(options.chunks, text->chunks());
  report.base.context = model->llama.config().context;
  report.base.scored = report.base.context - report.base.context / 2 - 1;  // nothing follows the last token
  report.base.slab_bytes = options.slab_bytes;
  report.pair = pairs->front();
  report.cold = options.cold;
  std::vector<uint32_t> formats;
  for (const FormatPair& format : *cold) {
    formats.push_back(format.v.id);
  }
  Progress progress((1 + 2 * targets->size()) * report.base.chunks, true);
  progress.phase("without cooling");
  std::vector<std::vector<float>> truth(report.base.chunks);
  for (uint32_t chunk = 0; chunk < report.base.chunks; ++chunk, progress.advance()) {
    LimitRun whole(*model, *text, report.base);
    KVANT_TRY(whole.fill_half(*device, report.pair, chunk));
    KVANT_TRY(whole.read_second_half(truth[chunk]));
  }
  for (const CoolOrder order : kOrders) {
    for (const uint32_t percent : *targets) {
      progress.phase(std::string(kOrderNames[static_cast<size_t>(order)]) + ", " + std::to_string(percent) + " %");
      auto point = measure(*model, *text, *device, report, formats, truth, order, percent, progress);
      if (!point.ok()) {
        return point.failure();
      }
      report.curves[static_cast<size_t>(order)].push_back(*point);
    }
  }
  progress.clear();
  KVANT_TRY(options.output.write(report, [](const auto& r) { return introduction(r) + "\n\n" + figures_table(r).render(); }, cool_json, cool_html));
  return {};
}

}  // namespace

void add_cool_curve_command(CLI::App& app) {
  auto options = std::make_shared<CoolOptions>();
  CLI::App* command = app.add_subcommand("cool-curve", "divergence of a cache whose pages cool to a share of its bytes");
  add_host_options(*command, options->host);
  command->add_option("--model", options->model, kModelHelp)->capture_default_str();
  command->add_option("--text", options->text, "held-out text, looked for as the model is")->capture_default_str();
  command->add_option("--format", options->format, "format or pair K/V that the cache is filled in")->capture_default_str();
  command->add_option("--cold", options->cold, "what V of a page becomes, one or two formats")->capture_default_str();
  command->add_option("--targets", options->targets, "bytes left in percent of the filled cache's, comma-separated")->capture_default_str();
  command->add_option("--chunks", options->chunks, "chunks of text, each as long as the model's context")->check(at_least(1))->capture_default_str();
  command->add_option("--slab-bytes", options->slab_bytes, "what memory is given back by, a layer")->check(at_least(1))->capture_default_str();
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
