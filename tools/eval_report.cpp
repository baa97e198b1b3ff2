// The figures of kvant eval as JSON, as a page with plots, and as the plot that stands alone.
#include "eval_report.hpp"

#include <nlohmann/json.hpp>

#include "html_report.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

Json error_json(const ErrorFigures& error) {
  return Json{{"relative_mse", error.relative_mse}, {"cosine", error.cosine}};
}

Json recall_json(const RecallFigures& recall) {
  return Json{{"lines", recall.lines}, {"exact", recall.exact}, {"bits_per_byte", recall.bits_per_byte}};
}

Json language_json(const EvalReport& report, const LanguageFigures& figures) {
  return {{"tokens", figures.text.tokens},
          {"perplexity", figures.text.perplexity},
          {"perplexity_change", perplexity_change(report, figures.text)},
          {"kl_mean", figures.text.kl_mean},
          {"kl_p99", figures.text.kl_p99},
          {"top1_agreement", figures.text.top1_agreement},
          {"recall_hard", recall_json(figures.recall_hard)},
          {"recall_test", recall_json(figures.recall_test)}};
}

Json pair_json(const EvalReport& report, const PairFigures& figures) {
  Json pair = {{"name", figures.pair.name()},
               {"k", figures.pair.k.name},
               {"v", figures.pair.v.name},
               {"bits_per_element", figures.bits_per_element},
               {"seconds", figures.seconds}};
  for (const LanguageFigures& language : figures.language) {
    pair["keys"][keys_name(language.keys)] = language_json(report, language);
  }
  for (const TensorFigures& set : figures.tensors) {
    pair["tensors"][set.set] = {{"k", error_json(set.k)}, {"v", error_json(set.v)}, {"output", error_json(set.output)}};
  }
  for (const AttentionFigures& one : figures.attention) {
    pair["attention"].push_back({{"set", one.set},
                                 {"head_dim", one.head_dim},
                                 {"logit_std", one.logit_std},
                                 {"key_error", one.key_error},
                                 {"output_error", one.output_error},
                                 {"key_divergence", one.key_divergence},
                                 {"top1_agreement", one.top1_agreement}});
  }
  for (const NeedleFigures& needle : figures.needles) {
    pair["needles"].push_back({{"head_dim", needle.head_dim},
                               {"keys", needle.keys},
                               {"needles", needle.needles},
                               {"found", needle.found},
                               {"exact_mass", needle.exact_mass},
                               {"least_share", needle.least_share},
                               {"kept", needle.kept()}});
  }
  return pair;
}

BarPlot bars(const EvalReport& report, const std::string& title, const std::string& label, size_t first,
             double (*value)(const EvalReport&, const LanguageFigures&)) {
  BarPlot plot{title, label, {}, {}};
  for (size_t i = first; i < report.pairs.size(); ++i) {
    plot.categories.push_back(report.pairs[i].pair.name());
  }
  for (const Keys keys : report.keys) {
    std::vector<double> values;
    for (size_t i = first; i < report.pairs.size(); ++i) {
      values.push_back(value(report, *report.pairs[i].with(keys)));
    }
    plot.series.emplace_back(std::string(keys_name(keys)) + " keys", std::move(values));
  }
  return plot;
}

XyPlot output_plot(const EvalReport& report) {
  XyPlot output{"Error of the attention output by size",
                "bits per element held",
                "relative squared error",
                false,
                false,
                true,
                {}};
  for (size_t set = 0; set < report.pairs[0].tensors.size(); ++set) {
    PlotSeries series{report.pairs[0].tensors[set].set, {}, {}};
    for (const PairFigures& figures : report.pairs) {
      // The recorded tensors are f16: formats that hold them exactly would only stretch the axis.
      constexpr double kExact = 1e-9;
      if (set < figures.tensors.size() && figures.tensors[set].output.relative_mse > kExact) {
        series.points.emplace_back(figures.bits_per_element, figures.tensors[set].output.relative_mse);
        series.labels.push_back(set == 0 ? figures.pair.name() : "");
      }
    }
    output.series.push_back(series);
  }
  return output;
}

void add_tables(HtmlReport& page, const std::vector<TitledTable>& tables) {
  for (const TitledTable& one : tables) {
    page.heading(one.title);
    page.paragraph(one.explanation);
    page.table(one.table);
  }
}

// Of both sides, or of neither.
std::string ending_of(const FormatPair& pair) {
  const std::string k = suffix(pair.transform_k, (pair.protect & KVANT_PROTECT_K) != 0);
  return pair.by_layer.empty() && k == suffix(pair.transform_v, (pair.protect & KVANT_PROTECT_V) != 0) ? k : "";
}

}  // namespace

XyPlot divergence_plot(const EvalReport& report) {
  XyPlot plot{"Divergence from the f32 cache by size",
              "bits per element held",
              "mean KL divergence, nats",
              false,
              false,
              true,
              {}};
  plot.height = report.pairs.size() > 20 ? 700 : 482;
  plot.tight_x = true;
  // A series for each kind of keys and each ending ("+cr") that both sides have: points then carry the formats' names alone.
  std::vector<std::string> endings;
  for (const PairFigures& figures : report.pairs) {
    if (std::find(endings.begin(), endings.end(), ending_of(figures.pair)) == endings.end()) {
      endings.push_back(ending_of(figures.pair));
    }
  }
  for (const std::string& ending : endings) {
    for (const Keys keys : report.keys) {
      PlotSeries series{std::string(keys_name(keys)) + " keys" + (ending.empty() ? "" : ", " + ending), {}, {}};
      for (size_t i = 1; i < report.pairs.size(); ++i) {
        const PairFigures& figures = report.pairs[i];
        if (ending_of(figures.pair) != ending || (figures.pair.k.name == "f32" && figures.pair.v.name == "f32")) {
          continue;
        }
        series.points.emplace_back(figures.bits_per_element, figures.with(keys)->text.kl_mean);
        const std::string name = figures.pair.name();
        series.labels.push_back(ending.empty() || !name.ends_with(ending) || name.find('/') != std::string::npos ? name
                                                                                     : name.substr(0, name.size() - ending.size()));
      }
      if (!series.points.empty()) {
        plot.series.push_back(std::move(series));
      }
    }
  }
  return plot;
}

std::string eval_json(const EvalReport& report) {
  Json json;
  json["device"] = report.device.name;
  json["driver"] = report.device.driver;
  json["commit"] = report.commit;
  json["model"] = report.model;
  json["chunks"] = report.chunks;
  json["pairs"] = Json::array();
  for (const PairFigures& figures : report.pairs) {
    json["pairs"].push_back(pair_json(report, figures));
  }
  json["formats"] = Json::array();
  for (const SyntheticFigures& figures : report.formats) {
    Json format = {{"format", figures.format.name}, {"bytes_65b", figures.bytes_65b}};
    for (const SyntheticSet& set : figures.sets) {
      Json& one = format["sets"][set.name] = error_json(set.error);
      if (set.keys) {
        one["centred"] = set.centred;
      }
    }
    json["formats"].push_back(format);
  }
  return json.dump(2) + "\n";
}

std::string eval_html(const EvalReport& report) {
  HtmlReport page("kvant: quality of cache formats");
  page.paragraph(eval_introduction(report));
  page.heading("Language");
  page.table(language_table(report));
  if (report.keys.size() > 1) {
    page.heading("Plain and outlier keys side by side");
    page.paragraph("PPL: change to the f32 cache with plain keys.");
    page.table(keys_table(report));
  }
  page.plot(divergence_plot(report));
  page.plot(bars(report, "Perplexity against the f32 cache", "change in %", 1,
                 [](const EvalReport& all, const LanguageFigures& figures) {
                   return 100 * perplexity_change(all, figures.text);
                 }));
  if (report.pairs[0].language[0].recall_hard.lines > 0) {
    page.plot(
        bars(report, "Hard recall: cost of the answers, bits per byte (less is better)", "bits per answer byte", 0,
             [](const EvalReport&, const LanguageFigures& figures) { return figures.recall_hard.bits_per_byte; }));
  }
  if (!report.pairs[0].tensors.empty()) {
    page.heading("Recorded keys, values and queries");
    page.paragraph(
        "Errors of what the cache holds, and of its attention output against exact attention in double precision.");
    page.plot(output_plot(report));
    page.table(tensor_table(report));
  }
  add_tables(page, attention_tables(report));
  add_tables(page, synthetic_tables(report));
  if (!report.formats.empty()) {
    page.heading("A 65B-shaped cache");
    page.paragraph(
        "80 layers, 64 heads of 128, 2048 tokens: the bytes of one page as the pool holds it, times pages and layers.");
    BarPlot memory{"Memory by format", "GiB", {}, {{"held", {}}}};
    for (const SyntheticFigures& figures : report.formats) {
      memory.categories.push_back(figures.format.name);
      memory.series[0].second.push_back(static_cast<double>(figures.bytes_65b) / (1024.0 * 1024.0 * 1024.0));
    }
    page.plot(memory);
    page.table(memory_table(report));
  }
  return page.render_page();
}

}  // namespace kvant::tools
