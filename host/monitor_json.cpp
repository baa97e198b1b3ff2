#include "monitor_json.hpp"

#include <nlohmann/json.hpp>

namespace kvant {

std::string monitor_json(const Monitor& monitor) {
  using Json = nlohmann::ordered_json;
  const auto number = [](std::optional<double> value) { return value ? Json(*value) : Json(nullptr); };
  Json samples = Json::array(), trends = Json::object(), recommendations = Json::array();
  for (const MonitorSample& sample : monitor.samples()) {
    Json row = {{"start_ms", sample.start_ms}, {"time_ms", sample.time_ms}};
    for (std::uint32_t m = 0; m < kMetrics; ++m) {
      const auto metric = static_cast<Metric>(m);
      row[std::string(metric_name(metric))] = number(sample_value(sample, metric));
    }
    samples.push_back(std::move(row));
  }
  for (std::uint32_t m = 0; m < kMetrics; ++m) {
    const auto metric = static_cast<Metric>(m);
    const TrendReport report = monitor.trend(metric);
    trends[std::string(metric_name(metric))] = {{"trend", trend_name(report.trend)}, {"enough", report.enough},
                                                {"samples", report.samples},         {"first", report.first},
                                                {"last", report.last},               {"dead_band", report.dead_band},
                                                {"text", report.text}};
  }
  for (const Recommendation& advice : monitor.recommendations())
    recommendations.push_back({{"rule", advice.rule}, {"text", advice.text}});
  const Json all = {{"samples", samples}, {"trends", trends}, {"recommendations", recommendations}};
  return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace kvant
