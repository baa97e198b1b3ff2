#include "tune_report.hpp"

#include <nlohmann/json.hpp>

#include "html_report.hpp"

namespace kvant::tools {

namespace {

Table result_table(const TuneReport& report) {
  Table table({"call", "configs", "chosen us", "quickest us", "gain", "the quickest"});
  for (const TuneResult& one : report.results) {
    table.add({one.call, std::to_string(one.candidates) + (one.complete ? "" : " of more") + (one.skipped == 0 ? "" : ", " + std::to_string(one.skipped) + " failed"), fixed(1e6 * one.chosen_seconds, 1),
               fixed(1e6 * one.best_seconds, 1), fixed(one.chosen_seconds / one.best_seconds, 2), one.best == one.chosen ? "as chosen" : one.best});
  }
  return table;
}

std::string introduction(const TuneReport& report) {
  return "Configs of attention on " + report.device + ", " + report.driver + ", commit " + report.commit + ", " + std::to_string(report.tokens) +
         " tokens. Medians of " + std::to_string(report.rounds) + " interleaved rounds, by timestamps where the device has them. Written to " + report.path + ".";
}

}  // namespace

std::string tune_text(const TuneReport& report) { return introduction(report) + "\n\n" + result_table(report).render(); }

std::string tune_json(const TuneReport& report) {
  nlohmann::ordered_json all;
  all["device"] = report.device;
  all["driver"] = report.driver;
  all["commit"] = report.commit;
  all["rounds"] = report.rounds;
  all["tokens"] = report.tokens;
  all["written"] = report.path;
  all["calls"] = nlohmann::ordered_json::array();
  for (const TuneResult& one : report.results)
    all["calls"].push_back({{"call", one.call},
                            {"candidates", one.candidates},
                            {"skipped", one.skipped},
                            {"complete", one.complete},
                            {"chosen", one.chosen},
                            {"chosen_seconds", one.chosen_seconds},
                            {"best", one.best},
                            {"best_seconds", one.best_seconds}});
  return all.dump(2) + "\n";
}

std::string tune_html(const TuneReport& report) {
  HtmlReport page("kvant tune");
  page.paragraph(introduction(report));
  page.table(result_table(report));
  BarPlot times{"Time of a call", "us", {}, {{"chosen by tuning", {}}, {"quickest measured", {}}}};
  for (const TuneResult& one : report.results) {
    times.categories.push_back(one.call);
    times.series[0].second.push_back(1e6 * one.chosen_seconds);
    times.series[1].second.push_back(1e6 * one.best_seconds);
  }
  page.plot(times);
  return page.render_page();
}

}  // namespace kvant::tools
