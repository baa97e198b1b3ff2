// The figures of kvant eval as terminal tables, as JSON and as a page with plots.
#include <nlohmann/json.hpp>

#include "eval.hpp"
#include "html_report.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

std::string recall_cell(const RecallFigures& recall) {
  return recall.lines == 0 ? "-" : std::to_string(recall.exact) + "/" + std::to_string(recall.lines);
}

double change(const EvalReport& report, const PairFigures& figures) {
  return figures.text.perplexity / report.pairs[0].text.perplexity - 1.0;
}

Table language_table(const EvalReport& report) {
  Table table({"K/V", "bits", "PPL", "to f32", "KL mean", "KL p99", "same top-1", "hard recall", "bits/byte", "recall",
               "seconds"});
  for (const PairFigures& figures : report.pairs) {
    const double delta = change(report, figures);
    table.add({figures.pair.name(), fixed(figures.bits_per_element, 2), fixed(figures.text.perplexity, 4),
               (delta >= 0 ? "+" : "") + fixed(100 * delta, 3) + " %", significant(figures.text.kl_mean),
               significant(figures.text.kl_p99), percent(figures.text.top1_agreement, 2),
               recall_cell(figures.recall_hard),
               figures.recall_hard.lines > 0 ? fixed(figures.recall_hard.bits_per_byte, 4) : "-",
               recall_cell(figures.recall_test), fixed(figures.seconds, 0)});
  }
  return table;
}

Table tensor_table(const EvalReport& report) {
  Table table({"K/V", "data", "K relMSE", "K cosine", "V relMSE", "V cosine", "output relMSE", "output cosine"});
  for (const PairFigures& figures : report.pairs) {
    for (const TensorFigures& set : figures.tensors) {
      table.add({figures.pair.name(), set.set, significant(set.k.relative_mse), fixed(set.k.cosine, 6),
                 significant(set.v.relative_mse), fixed(set.v.cosine, 6), significant(set.output.relative_mse),
                 fixed(set.output.cosine, 6)});
    }
  }
  return table;
}

Table synthetic_table(const EvalReport& report) {
  std::vector<std::string> columns = {"format"};
  for (const auto& [name, error] : report.formats[0].sets) {
    columns.push_back(name);
    columns.push_back("cosine");
  }
  Table table(columns);
  for (const SyntheticFigures& figures : report.formats) {
    std::vector<std::string> cells = {figures.format.name};
    for (const auto& [name, error] : figures.sets) {
      cells.push_back(significant(error.relative_mse));
      cells.push_back(fixed(error.cosine, 5));
    }
    table.add(cells);
  }
  return table;
}

Table memory_table(const EvalReport& report) {
  Table table({"format", "bits per element", "K and V held", "of f16"});
  constexpr double kElements = 2.0 * 80 * 64 * 128 * 2048;
  for (const SyntheticFigures& figures : report.formats) {
    const double bytes = static_cast<double>(figures.bytes_65b);
    table.add(
        {figures.format.name, fixed(8 * bytes / kElements, 3), bytes_text(bytes), percent(bytes / (2 * kElements))});
  }
  return table;
}

std::string introduction(const EvalReport& report) {
  return report.model + " on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit +
         ". Text: " + std::to_string(report.chunks) + (report.chunks == 1 ? " chunk" : " chunks") +
         " of held-out text, the second half of each scored (" + std::to_string(report.pairs[0].text.tokens) +
         " tokens). The reference is the same plugin with an f32 cache; KL divergence "
         "in nats.";
}

}  // namespace

std::string eval_text(const EvalReport& report) {
  std::string text = introduction(report) + "\n\n" + language_table(report).render();
  if (!report.pairs[0].tensors.empty()) {
    text +=
        "\nRecorded K, V and Q of the model (relative squared error; output: attention against exact attention in "
        "double)\n\n" +
        tensor_table(report).render();
  }
  if (!report.formats.empty()) {
    text += "\nMade-up data, relative squared error and cosine\n\n" + synthetic_table(report).render();
    text += "\nA 65B-shaped cache: 80 layers, 64 heads of 128, 2048 tokens\n\n" + memory_table(report).render();
  }
  return text;
}

std::string eval_json(const EvalReport& report) {
  const auto error_json = [](const ErrorFigures& error) {
    return Json{{"relative_mse", error.relative_mse}, {"cosine", error.cosine}};
  };
  const auto recall_json = [](const RecallFigures& recall) {
    return Json{{"lines", recall.lines}, {"exact", recall.exact}, {"bits_per_byte", recall.bits_per_byte}};
  };
  Json json;
  json["device"] = report.device.name;
  json["driver"] = report.device.driver;
  json["commit"] = report.commit;
  json["model"] = report.model;
  json["chunks"] = report.chunks;
  json["pairs"] = Json::array();
  for (const PairFigures& figures : report.pairs) {
    Json pair = {{"k", figures.pair.k.name},
                 {"v", figures.pair.v.name},
                 {"bits_per_element", figures.bits_per_element},
                 {"tokens", figures.text.tokens},
                 {"perplexity", figures.text.perplexity},
                 {"perplexity_change", change(report, figures)},
                 {"kl_mean", figures.text.kl_mean},
                 {"kl_p99", figures.text.kl_p99},
                 {"top1_agreement", figures.text.top1_agreement},
                 {"recall_hard", recall_json(figures.recall_hard)},
                 {"recall_test", recall_json(figures.recall_test)},
                 {"seconds", figures.seconds}};
    for (const TensorFigures& set : figures.tensors) {
      pair["tensors"][set.set] = {
          {"k", error_json(set.k)}, {"v", error_json(set.v)}, {"output", error_json(set.output)}};
    }
    json["pairs"].push_back(pair);
  }
  json["formats"] = Json::array();
  for (const SyntheticFigures& figures : report.formats) {
    Json format = {{"format", figures.format.name}, {"bytes_65b", figures.bytes_65b}};
    for (const auto& [name, error] : figures.sets) {
      format["sets"][name] = error_json(error);
    }
    json["formats"].push_back(format);
  }
  return json.dump(2) + "\n";
}

std::string eval_html(const EvalReport& report) {
  HtmlReport page("kvant: quality of cache formats");
  page.paragraph(introduction(report));
  page.heading("Language");
  page.table(language_table(report));
  XyPlot size{"Divergence from the f32 cache by size",
              "bits per element held",
              "mean KL divergence, nats",
              false,
              false,
              true,
              {}};
  PlotSeries points{"format", {}, {}};
  BarPlot recall{"Hard recall: cost of the answers, bits per byte (less is better)",
                 "bits per answer byte",
                 {},
                 {{"hard recall", {}}}};
  BarPlot perplexity{"Perplexity against the f32 cache", "change in %", {}, {{"perplexity", {}}}};
  for (const PairFigures& figures : report.pairs) {
    points.points.emplace_back(figures.bits_per_element, figures.text.kl_mean);
    points.labels.push_back(figures.pair.name());
    recall.categories.push_back(figures.pair.name());
    recall.series[0].second.push_back(figures.recall_hard.bits_per_byte);
    if (&figures != &report.pairs[0]) {
      perplexity.categories.push_back(figures.pair.name());
      perplexity.series[0].second.push_back(100 * change(report, figures));
    }
  }
  size.series = {points};
  page.plot(size);
  page.plot(perplexity);
  if (report.pairs[0].recall_hard.lines > 0) {
    page.plot(recall);
  }
  if (!report.pairs[0].tensors.empty()) {
    page.heading("Recorded keys, values and queries");
    page.paragraph(
        "Errors of what the cache holds, and of its attention output against exact attention in double precision.");
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
    page.plot(output);
    page.table(tensor_table(report));
  }
  if (!report.formats.empty()) {
    page.heading("Made-up data");
    page.paragraph(
        "Relative squared error and cosine after one trip through the stand-alone conversion on the device.");
    page.table(synthetic_table(report));
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
