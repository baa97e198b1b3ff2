// One row a capacity and policy; the optimum and the cache without end stand beside them.
#include "replay_report.hpp"

#include <nlohmann/json.hpp>

#include "html_report.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

const char* optimum_name(const ReplayReport& report) { return report.exact ? "optimum" : "bound"; }
std::string bytes_of(uint64_t bytes) { return bytes_text(static_cast<double>(bytes)); }

std::string introduction(const ReplayReport& report) {
  return report.trace + ": " + std::to_string(report.requests) + " requests, " + std::to_string(report.infinite.pages) +
         (report.paths ? " pages, " : " objects, ") + std::to_string(report.distinct_pages) + " of them distinct (" +
         bytes_of(report.distinct_bytes) + "). " +
         (report.paths ? "A request hits the pages of its prefix up to the first one that is missing. " : "") +
         (report.exact ? "optimum: Belady's page hits, which no policy can exceed. "
                       : "bound: no policy can exceed it, and perhaps none can reach it; page and byte hits are "
                         "bounded apart. ") +
         "infinite: a cache without end.";
}

Table figure_table(const ReplayReport& report) {
  Table table({"capacity", "share", "policy", "page hits", "token hits", "byte hits", "of optimum", "evicted",
               "evicted bytes", "stored bytes", "not stored"});
  const auto add = [&](const std::string& capacity, const std::string& share, const std::string& policy,
                       const ReplayFigures& figures, const ReplayFigures* best, bool ran) {
    table.add({capacity, share, policy, percent(figures.page_rate(), 2),
               figures.tokens > 0 ? percent(figures.token_rate(), 2) : "-", percent(figures.byte_rate(), 2),
               best != nullptr && best->hit_pages > 0
                   ? percent(static_cast<double>(figures.hit_pages) / static_cast<double>(best->hit_pages))
                   : "-",
               ran ? std::to_string(figures.evicted_pages) : "-", ran ? bytes_of(figures.evicted_bytes) : "-",
               ran ? bytes_of(figures.stored_bytes) : "-", ran ? std::to_string(figures.refused_pages) : "-"});
  };
  for (const ReplayRow& best : report.optimum) {
    const std::string capacity = bytes_of(best.capacity_bytes);
    const std::string share =
        percent(static_cast<double>(best.capacity_bytes) / static_cast<double>(report.distinct_bytes));
    for (const ReplayRow& row : report.rows) {
      if (row.capacity_bytes == best.capacity_bytes) {
        add(capacity, share, row.policy, row.figures, &best.figures, true);
      }
    }
    add(capacity, share, optimum_name(report), best.figures, nullptr, report.exact);
  }
  add("-", "-", "infinite", report.infinite, nullptr, true);
  return table;
}

Json figures_json(const ReplayFigures& figures) {
  return {{"page_hit_rate", figures.page_rate()},
          {"token_hit_rate", figures.token_rate()},
          {"byte_hit_rate", figures.byte_rate()},
          {"requests", figures.requests},
          {"pages", figures.pages},
          {"hit_pages", figures.hit_pages},
          {"tokens", figures.tokens},
          {"hit_tokens", figures.hit_tokens},
          {"bytes", figures.bytes},
          {"hit_bytes", figures.hit_bytes},
          {"stored_pages", figures.stored_pages},
          {"stored_bytes", figures.stored_bytes},
          {"evicted_pages", figures.evicted_pages},
          {"evicted_bytes", figures.evicted_bytes},
          {"expired_pages", figures.expired_pages},
          {"refused_pages", figures.refused_pages},
          {"most_bytes", figures.most_bytes}};
}

Json row_json(const ReplayRow& row) {
  Json json = {{"capacity_bytes", row.capacity_bytes}, {"policy", row.policy}};
  json.update(figures_json(row.figures));
  return json;
}

// What a bound does not know (a token rate, evictions) is left out rather than shown as 0.
Json bound_json(const ReplayRow& row) {
  return {{"capacity_bytes", row.capacity_bytes},     {"policy", row.policy},
          {"page_hit_rate", row.figures.page_rate()}, {"byte_hit_rate", row.figures.byte_rate()},
          {"hit_pages", row.figures.hit_pages},       {"hit_bytes", row.figures.hit_bytes}};
}

std::vector<std::string> policies_of(const ReplayReport& report) {
  std::vector<std::string> names;
  for (const ReplayRow& row : report.rows) {
    if (row.capacity_bytes == report.rows.front().capacity_bytes) {
      names.push_back(row.policy);
    }
  }
  return names;
}

XyPlot plot_of(const ReplayReport& report, const std::string& title, const std::string& y_label,
               double (*value)(const ReplayFigures&), bool with_optimum, bool with_infinite) {
  XyPlot plot;
  plot.title = title;
  plot.x_label = "capacity, MiB";
  plot.y_label = y_label;
  plot.log_x = true;
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / 0x1p20; };
  for (const std::string& policy : policies_of(report)) {
    PlotSeries series;
    series.name = policy;
    for (const ReplayRow& row : report.rows) {
      if (row.policy == policy) {
        series.points.push_back({mib(row.capacity_bytes), value(row.figures)});
      }
    }
    plot.series.push_back(series);
  }
  PlotSeries best{optimum_name(report), {}, {}}, infinite{"infinite", {}, {}};
  for (const ReplayRow& row : report.optimum) {
    best.points.push_back({mib(row.capacity_bytes), value(row.figures)});
    infinite.points.push_back({mib(row.capacity_bytes), value(report.infinite)});
  }
  if (with_optimum) {
    plot.series.push_back(best);
  }
  if (with_infinite) {
    plot.series.push_back(infinite);
  }
  return plot;
}

}  // namespace

std::string replay_text(const ReplayReport& report) {
  return introduction(report) + "\n\n" + figure_table(report).render();
}

std::string replay_json(const ReplayReport& report) {
  Json json;
  json["command"] = report.command;
  json["trace"] = report.trace;
  json["requests"] = report.requests;
  json["distinct_pages"] = report.distinct_pages;
  json["distinct_bytes"] = report.distinct_bytes;
  json["optimum_is_exact"] = report.exact;
  json["infinite"] = figures_json(report.infinite);
  json["optimum"] = Json::array();
  for (const ReplayRow& row : report.optimum) {
    json["optimum"].push_back(report.exact ? row_json(row) : bound_json(row));
  }
  json["results"] = Json::array();
  for (const ReplayRow& row : report.rows) {
    json["results"].push_back(row_json(row));
  }
  return json.dump(2) + "\n";
}

std::string replay_html(const ReplayReport& report) {
  HtmlReport page("kvant replay");
  page.paragraph(introduction(report));
  page.paragraph("Command: " + report.command);
  page.plot(plot_of(
      report, "Pages that were there, of those asked for", "page hits, %",
      [](const ReplayFigures& figures) { return 100 * figures.page_rate(); }, true, true));
  if (report.infinite.tokens > 0) {
    page.plot(plot_of(
        report, "Prompt tokens that need no computing", "token hits, %",
        [](const ReplayFigures& figures) { return 100 * figures.token_rate(); }, true, true));
  } else {
    page.plot(plot_of(
        report, "Bytes that were there, of those asked for", "byte hits, %",
        [](const ReplayFigures& figures) { return 100 * figures.byte_rate(); }, true, true));
  }
  page.plot(plot_of(
      report, "Bytes evicted", "GiB",
      [](const ReplayFigures& figures) { return static_cast<double>(figures.evicted_bytes) / 0x1p30; }, report.exact,
      false));
  page.heading("All figures");
  page.table(figure_table(report));
  return page.render_page();
}

}  // namespace kvant::tools
