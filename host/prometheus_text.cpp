// The grammar of the Prometheus text format.
#include "prometheus_text.hpp"

#include <charconv>
#include <cmath>

namespace kvant {
namespace {

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

// Length of the well-formed UTF-8 character that `text` begins with; 0 if there is none (Unicode 15, table 3-7).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [text](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto within = [](unsigned value, unsigned low, unsigned high) { return value >= low && value <= high; };
  const auto tail = [&](std::size_t i) { return within(byte(i), 0x80, 0xbf); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (within(first, 0xc2, 0xdf)) return tail(1) ? 2 : 0;
  if (within(first, 0xe0, 0xef)) {
    const unsigned low = first == 0xe0 ? 0xa0 : 0x80, high = first == 0xed ? 0x9f : 0xbf;  // no overlong, no surrogate
    return within(byte(1), low, high) && tail(2) ? 3 : 0;
  }
  if (within(first, 0xf0, 0xf4)) {
    const unsigned low = first == 0xf0 ? 0x90 : 0x80, high = first == 0xf4 ? 0x8f : 0xbf;  // up to U+10FFFF
    return within(byte(1), low, high) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

bool is_label_name(std::string_view name) {
  if (name.empty() || !letter(name[0]) || name.starts_with("__")) return false;
  for (const char c : name)
    if (!letter(c) && !digit(c)) return false;
  return true;
}

std::string escape_label_value(std::string_view value) {
  std::string result;
  while (!value.empty()) {
    const std::size_t length = utf8_length(value);
    if (length == 0)
      result += "\xef\xbf\xbd";
    else if (value[0] == '\n')
      result += "\\n";
    else if (value[0] == '\\' || value[0] == '"')
      result += {'\\', value[0]};
    else
      result += value.substr(0, length);
    value.remove_prefix(length == 0 ? 1 : length);
  }
  return result;
}

std::string prometheus_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof text, value);
  return std::string(text, end.ptr);
}

std::string PrometheusText::join_labels(std::string_view base, LabelPairs labels) {
  std::string result(base);
  for (const auto& [name, value] : labels) {
    if (!result.empty()) result += ',';
    result += name;
    result += "=\"" + escape_label_value(value) + '"';
  }
  return result;
}

void PrometheusText::family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  header_ = "# HELP " + name_ + ' ';
  for (const char c : help)
    header_ += c == '\n' ? std::string("\\n") : c == '\\' ? std::string("\\\\") : std::string(1, c);
  header_ += "\n# TYPE " + name_ + ' ';
  header_ += type;
  header_ += '\n';
}

void PrometheusText::line(std::string_view suffix, const std::string& labels, std::string_view value) {
  text_ += header_;
  header_.clear();
  text_ += name_;
  text_ += suffix;
  if (!labels.empty()) text_ += '{' + labels + '}';
  text_ += ' ';
  text_ += value;
  text_ += '\n';
}

void PrometheusText::sample(std::string_view base, LabelPairs labels, std::uint64_t value) {
  line("", join_labels(base, labels), std::to_string(value));
}

void PrometheusText::sample(std::string_view base, LabelPairs labels, double value) {
  line("", join_labels(base, labels), prometheus_number(value));
}

void PrometheusText::histogram(std::string_view base, LabelPairs labels, const LatencyHistogram& histogram) {
  const std::string joined = join_labels(base, labels);
  const std::string before = joined.empty() ? joined : joined + ',';
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < LatencyHistogram::kBounds; ++i) {
    below += histogram.count(i);
    if (i % LatencyHistogram::kPerOctave != 0) continue;
    line("_bucket", before + "le=\"" + prometheus_number(LatencyHistogram::bound(i)) + '"', std::to_string(below));
  }
  const std::string count = std::to_string(histogram.count());
  line("_bucket", before + "le=\"+Inf\"", count);
  line("_sum", joined, prometheus_number(histogram.sum()));
  line("_count", joined, count);
}

}  // namespace kvant
