// A strict reader of the Prometheus text format 0.0.4, stricter than scrapers where kvant promises more: HELP and TYPE
// once and right before their samples, names kvant_*, counters end in _total, no series twice, histograms whole and
// cumulative.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace kvant::test {

struct PrometheusSample {
  std::string name;
  std::map<std::string, std::string> labels;
  std::string text;  // of the value
  double value = 0;
};

class PrometheusChecker {
 public:
  // false: error() says what is wrong, and in which line.
  bool read(std::string_view text) {
    if (!text.empty() && text.back() != '\n') return fail("the last line does not end");
    while (!text.empty()) {
      ++number_;
      const std::string_view line = text.substr(0, text.find('\n'));
      text.remove_prefix(line.size() + 1);
      if (!(line.starts_with('#') ? read_comment(line) : read_sample(line))) return false;
    }
    return header_ != Header::help && finish_family();
  }

  const std::string& error() const { return error_; }
  const std::vector<PrometheusSample>& samples() const { return samples_; }
  const std::map<std::string, std::string>& families() const { return types_; }

  // The value's text of the only sample with this name and these labels among its own; empty: none or several.
  std::string value(std::string_view name, const std::map<std::string, std::string>& labels = {}) const {
    std::string found;
    for (const PrometheusSample& sample : samples_) {
      const bool fits = sample.name == name && std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
                          const auto own = sample.labels.find(label.first);
                          return own != sample.labels.end() && own->second == label.second;
                        });
      if (!fits) continue;
      if (!found.empty()) return {};
      found = sample.text;
    }
    return found;
  }

 private:
  enum class Header { none, help, type };
  struct Buckets {
    std::vector<std::pair<double, double>> bounds;  // le, count
    std::optional<double> sum, count;
  };

  bool fail(const std::string& what) {
    error_ = "line " + std::to_string(number_) + ": " + what;
    return false;
  }

  static bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
  static std::string_view take_name(std::string_view& line) {
    std::size_t length = 0;
    while (length < line.size() && (letter(line[length]) || (length > 0 && line[length] >= '0' && line[length] <= '9')))
      ++length;
    const std::string_view name = line.substr(0, length);
    line.remove_prefix(length);
    return name;
  }
  static bool take(std::string_view& line, std::string_view expected) {
    if (!line.starts_with(expected)) return false;
    line.remove_prefix(expected.size());
    return true;
  }

  bool read_comment(std::string_view line) {
    if (take(line, "# HELP ")) {
      if (header_ == Header::help) return fail("HELP follows HELP");
      if (!finish_family()) return false;
      family_ = take_name(line);
      if (!family_.starts_with("kvant_")) return fail("'" + family_ + "' does not begin with kvant_");
      if (!take(line, " ") || line.empty()) return fail("HELP without a text");
      if (types_.contains(family_)) return fail("a second HELP of " + family_);
      header_ = Header::help;
      return true;
    }
    if (!take(line, "# TYPE ")) return fail("a comment that is neither HELP nor TYPE");
    if (header_ != Header::help || take_name(line) != family_ || !take(line, " ")) return fail("TYPE without its HELP");
    static const std::set<std::string_view> kTypes = {"counter", "gauge", "histogram"};
    if (!kTypes.contains(line)) return fail("unknown type");
    if ((line == "counter") != family_.ends_with("_total")) return fail("counters, and only these, end in _total");
    for (const std::string_view suffix : {"_bucket", "_sum", "_count"})
      if (family_.ends_with(suffix)) return fail("a family with a suffix that is a histogram's");
    types_[family_] = line;
    header_ = Header::type;
    return true;
  }

  bool read_labels(std::string_view& line, std::map<std::string, std::string>& labels) {
    do {
      const std::string name(take_name(line));
      if (name.empty() || name.starts_with("__") || !take(line, "=\"")) return fail("no label");
      std::string value;
      for (;; line.remove_prefix(1)) {
        if (line.empty()) return fail("a label value does not end");
        if (line[0] == '"') break;
        if (line[0] != '\\') {
          value += line[0];
          continue;
        }
        line.remove_prefix(1);
        if (line.empty() || (line[0] != 'n' && line[0] != '\\' && line[0] != '"')) return fail("unknown escape");
        value += line[0] == 'n' ? '\n' : line[0];
      }
      line.remove_prefix(1);
      if (!labels.emplace(name, value).second) return fail("label " + name + " twice");
    } while (take(line, ","));
    return take(line, "}") || fail("labels do not end");
  }

  static std::optional<double> number(std::string_view text) {
    if (text == "+Inf") return std::numeric_limits<double>::infinity();
    if (text == "-Inf") return -std::numeric_limits<double>::infinity();
    if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
    double value = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
    return value;
  }

  bool read_sample(std::string_view line) {
    if (header_ != Header::type) return fail("a sample without HELP and TYPE");
    PrometheusSample sample;
    sample.name = take_name(line);
    if (take(line, "{") && !read_labels(line, sample.labels)) return false;
    if (!take(line, " ")) return fail("no blank before the value");
    sample.text = line;
    const std::optional<double> value = number(line);
    if (!value) return fail("'" + sample.text + "' is no number");
    sample.value = *value;
    if (!series_.insert({sample.name, sample.labels}).second) return fail("a series twice");
    if (!(types_[family_] == "histogram" ? add_to_histogram(sample) : check_plain(sample))) return false;
    samples_.push_back(std::move(sample));
    return true;
  }

  bool check_plain(const PrometheusSample& sample) {
    if (sample.name != family_) return fail("'" + sample.name + "' stands in the family " + family_);
    if (sample.labels.contains("le")) return fail("le outside of a histogram");
    if (types_[family_] == "counter" && !(sample.value >= 0)) return fail("a counter below 0");
    return true;
  }

  bool add_to_histogram(const PrometheusSample& sample) {
    auto labels = sample.labels;
    const auto le = labels.find("le");
    const bool bucket = sample.name == family_ + "_bucket";
    if (bucket != (le != labels.end())) return fail("le belongs to buckets, and to these only");
    if (!bucket) {
      Buckets& whole = histograms_[labels];
      if (sample.name == family_ + "_sum")
        whole.sum = sample.value;
      else if (sample.name == family_ + "_count")
        whole.count = sample.value;
      else
        return fail("'" + sample.name + "' stands in the family " + family_);
      return true;
    }
    const std::optional<double> bound = number(le->second);
    if (!bound || std::isnan(*bound)) return fail("le is no number");
    labels.erase(le);
    auto& bounds = histograms_[labels].bounds;
    if (!bounds.empty() && (*bound <= bounds.back().first || sample.value < bounds.back().second))
      return fail("buckets are not cumulative");
    bounds.emplace_back(*bound, sample.value);
    return true;
  }

  bool finish_family() {
    if (header_ == Header::type && (series_.empty() || samples_.empty() || !samples_.back().name.starts_with(family_)))
      return fail("family " + family_ + " has no sample");
    for (const auto& [labels, whole] : histograms_) {
      if (whole.bounds.empty() || !std::isinf(whole.bounds.back().first)) return fail("a histogram without +Inf");
      if (!whole.sum || !whole.count) return fail("a histogram without its sum or count");
      if (*whole.count != whole.bounds.back().second) return fail("a histogram's count is not its +Inf bucket");
    }
    histograms_.clear();
    return true;
  }

  std::size_t number_ = 0;
  std::string error_, family_;
  Header header_ = Header::none;
  std::map<std::string, std::string> types_;
  std::set<std::pair<std::string, std::map<std::string, std::string>>> series_;
  std::map<std::map<std::string, std::string>, Buckets> histograms_;
  std::vector<PrometheusSample> samples_;
};

}  // namespace kvant::test
