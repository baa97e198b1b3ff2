// PrometheusText: writes samples in the Prometheus text format 0.0.4. Knows the grammar, and nothing of caches.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "histogram.hpp"

namespace kvant {

bool is_label_name(std::string_view name);  // [a-zA-Z_][a-zA-Z0-9_]*, not beginning with "__"
// As it stands between quotes: backslash, quote and line feed escaped, bytes that are no UTF-8 replaced by U+FFFD (a
// scraper would reject the whole text for one of them).
std::string escape_label_value(std::string_view value);
// Shortest text that reads back the same; "NaN", "+Inf", "-Inf".
std::string prometheus_number(double value);

using LabelPairs = std::span<const std::pair<std::string_view, std::string_view>>;

class PrometheusText {
 public:
  // Begins a family; its header is written before its first sample, and not at all if there is none.
  void family(std::string_view name, std::string_view type, std::string_view help);
  // `base` is label text as join_labels() gives it, put before `labels`.
  void sample(std::string_view base, LabelPairs labels, std::uint64_t value);
  void sample(std::string_view base, LabelPairs labels, double value);
  // Cumulative buckets at whole octaves and +Inf, sum and count.
  void histogram(std::string_view base, LabelPairs labels, const LatencyHistogram& histogram);

  static std::string join_labels(std::string_view base, LabelPairs labels);  // a="x",b="y"
  const std::string& text() const { return text_; }

 private:
  void line(std::string_view suffix, const std::string& labels, std::string_view value);

  std::string name_, header_, text_;
};

}  // namespace kvant
