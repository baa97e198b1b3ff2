#include "monitor_json.hpp"

#include "json_writer.hpp"

namespace kvant {
namespace {

void write_samples(JsonWriter& json, const Monitor& monitor) {
  json.begin_array();
  for (const MonitorSample& sample : monitor.samples()) {
    json.begin_object();
    json.member("start_ms", sample.start_ms);
    json.member("time_ms", sample.time_ms);
    for (std::uint32_t m = 0; m < kMetrics; ++m) {
      const auto metric = static_cast<Metric>(m);
      json.member(metric_name(metric), sample_value(sample, metric));
    }
    json.end_object();
  }
  json.end_array();
}

void write_trends(JsonWriter& json, const Monitor& monitor) {
  json.begin_object();
  for (std::uint32_t m = 0; m < kMetrics; ++m) {
    const auto metric = static_cast<Metric>(m);
    const TrendReport report = monitor.trend(metric);
    json.key(metric_name(metric));
    json.begin_object();
    json.member("trend", trend_name(report.trend));
    json.member("enough", report.enough);
    json.member("samples", report.samples);
    json.member("first", report.first);
    json.member("last", report.last);
    json.member("dead_band", report.dead_band);
    json.member("text", report.text);
    json.end_object();
  }
  json.end_object();
}

void write_recommendations(JsonWriter& json, const Monitor& monitor) {
  json.begin_array();
  for (const Recommendation& advice : monitor.recommendations()) {
    json.begin_object();
    json.member("rule", advice.rule);
    json.member("text", advice.text);
    json.end_object();
  }
  json.end_array();
}

}  // namespace

std::string monitor_json(const Monitor& monitor) {
  std::string text;
  JsonWriter json(text);
  json.begin_object();
  json.key("samples");
  write_samples(json, monitor);
  json.key("trends");
  write_trends(json, monitor);
  json.key("recommendations");
  write_recommendations(json, monitor);
  json.end_object();
  return text;
}

}  // namespace kvant
