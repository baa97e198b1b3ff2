// The figures of kvant bench as a terminal table, as JSON and as a page with plots.
#include <nlohmann/json.hpp>

#include "bench.hpp"
#include "html_report.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

double bandwidth(const BenchResult& result) { return result.device_bytes / result.seconds(); }
double rate(const BenchResult& result) { return result.flops / result.seconds(); }

// A copy reads and writes: of its bytes per second, each byte counts twice on the bus.
double copy_share(const BenchReport& report, const BenchResult& result) {
  return bandwidth(result) / (2.0 * report.copy_bytes_per_second);
}

std::string milliseconds(double seconds) { return seconds > 0 ? significant(1e3 * seconds) : "-"; }

Table result_table(const BenchReport& report) {
  Table table({"format", "shape", "bits", "device ms", "wall ms", "spread", "MiB", "GB/s", "of copy", "GFLOP/s"});
  for (const BenchResult& result : report.results) {
    table.add({result.format, result.shape, fixed(result.held_bits, 2), milliseconds(result.device_seconds),
               milliseconds(result.wall_seconds), percent(result.wall_spread, 0),
               significant(result.device_bytes / (1024.0 * 1024.0)), significant(bandwidth(result) * 1e-9),
               percent(copy_share(report, result)), result.flops > 0 ? significant(rate(result) * 1e-9) : "-"});
  }
  return table;
}

std::string introduction(const BenchReport& report) {
  return report.what + " on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit +
         ". Medians of " + std::to_string(report.rounds) +
         " interleaved rounds. Device time by timestamps (wall time where there are none); GB/s, "
         "GFLOP/s by device time. \"of copy\": share of a device-to-device copy in this run, which moved " +
         significant(2e-9 * report.copy_bytes_per_second) +
         " GB/s (bytes read and written). Wall time includes moving host data "
         "to the device and back.";
}

}  // namespace

std::string bench_text(const BenchReport& report) {
  return introduction(report) + "\n\n" + result_table(report).render();
}

std::string bench_json(const BenchReport& report) {
  Json json;
  json["bench"] = report.what;
  json["device"] = report.device.name;
  json["driver"] = report.device.driver;
  json["commit"] = report.commit;
  json["rounds"] = report.rounds;
  json["copy_bytes_per_second"] = report.copy_bytes_per_second;
  json["results"] = Json::array();
  for (const BenchResult& result : report.results) {
    json["results"].push_back({{"format", result.format},
                               {"shape", result.shape},
                               {"bits_per_element", result.held_bits},
                               {"device_seconds", result.device_seconds},
                               {"wall_seconds", result.wall_seconds},
                               {"wall_spread", result.wall_spread},
                               {"device_bytes", result.device_bytes},
                               {"bytes_per_second", bandwidth(result)},
                               {"share_of_copy", copy_share(report, result)},
                               {"flops", result.flops},
                               {"flops_per_second", rate(result)}});
  }
  return json.dump(2) + "\n";
}

std::string bench_html(const BenchReport& report) {
  HtmlReport page("kvant bench " + report.what);
  page.paragraph(introduction(report));
  page.table(result_table(report));
  BarPlot speed{"Rate of arithmetic", "GFLOP/s", {}, {{"GFLOP/s", {}}}};
  BarPlot bytes{"Bytes moved", "GB/s", {}, {{"GB/s", {}}}};
  for (const BenchResult& result : report.results) {
    const std::string name = result.format + " · " + result.shape;
    speed.categories.push_back(name);
    speed.series[0].second.push_back(rate(result) * 1e-9);
    bytes.categories.push_back(name);
    bytes.series[0].second.push_back(bandwidth(result) * 1e-9);
  }
  if (!report.results.empty() && report.results[0].flops > 0) {
    page.plot(speed);
  }
  bytes.categories.push_back("device-to-device copy");
  bytes.series[0].second.push_back(2e-9 * report.copy_bytes_per_second);
  page.plot(bytes);
  return page.render_page();
}

}  // namespace kvant::tools
