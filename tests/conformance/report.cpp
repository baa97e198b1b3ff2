#include "report.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

namespace kvant::conformance {

namespace {

struct Row {
  std::size_t pass = 0, warning = 0, not_supported = 0, expected = 0, bad = 0;
  double worst = 0.0, max_abs = 0.0, milliseconds = 0.0;
};

std::string group_of(const CaseResult& r) { return r.name.substr(0, r.name.find('.')); }

std::map<std::string, Row> rows_of(const RunSummary& summary) {
  std::map<std::string, Row> rows;
  for (const CaseResult& r : summary.results) {
    Row& row = rows[group_of(r)];
    if (r.status == CaseStatus::pass) ++row.pass;
    else if (r.status == CaseStatus::quality_warning) ++row.warning;
    else if (r.status == CaseStatus::not_supported) ++row.not_supported;
    else if (is_bad(r.status)) ++row.bad;
    else ++row.expected;
    row.milliseconds += r.milliseconds;
    if (!is_bad(r.status)) {
      row.worst = std::max(row.worst, r.figures.fraction);
      row.max_abs = std::max(row.max_abs, r.figures.max_abs);
    }
  }
  return rows;
}

std::string format(const char* pattern, double x) {
  char text[48];
  std::snprintf(text, sizeof(text), pattern, x);
  return text;
}

std::string totals(const RunSummary& summary) {
  std::string text;
  for (std::uint32_t s = 0; s < static_cast<std::uint32_t>(CaseStatus::count); ++s) {
    const auto status = static_cast<CaseStatus>(s);
    const std::size_t n = summary.count(status);
    if (n != 0 || status == CaseStatus::pass || status == CaseStatus::fail)
      text += (text.empty() ? "" : ", ") + std::string(status_name(status)) + " " + std::to_string(n);
  }
  return text;
}

std::map<std::string, CaseResult> parse_previous(const std::string& text) {
  std::map<std::string, CaseResult> previous;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    CaseResult r;
    if (from_json_line(line, &r)) previous[r.name] = r;
  }
  return previous;
}

void compare_with_previous(std::ostringstream& out, const RunSummary& summary, const std::string& text) {
  const auto previous = parse_previous(text);
  out << "\n## Compared with the previous report\n\n";
  std::size_t changes = 0;
  for (const CaseResult& r : summary.results) {
    const auto found = previous.find(r.name);
    if (found == previous.end()) continue;
    const CaseResult& old = found->second;
    if (is_bad(old.status) != is_bad(r.status)) {
      out << "- `" << r.name << "`: " << status_name(old.status) << " → " << status_name(r.status) << "\n";
      ++changes;
    } else if (!is_bad(r.status) && old.figures.max_abs > 0.0 && r.figures.max_abs > 2.0 * old.figures.max_abs) {
      out << "- `" << r.name << "`: error grew from " << format("%.3g", old.figures.max_abs) << " to "
          << format("%.3g", r.figures.max_abs) << "\n";
      ++changes;
    }
  }
  if (changes == 0) out << "No new failure, no fix, no error grown beyond twice its size.\n";
}

}  // namespace

std::string summary_table(const RunSummary& summary) {
  std::ostringstream out;
  char line[160];
  std::snprintf(line, sizeof(line), "%-20s %6s %8s %13s %9s %6s %12s %11s %8s\n", "operation", "pass", "warning", "not supported",
                "expected", "bad", "of its limit", "max error", "seconds");
  out << line;
  for (const auto& [name, row] : rows_of(summary)) {
    std::snprintf(line, sizeof(line), "%-20s %6zu %8zu %13zu %9zu %6zu %12.2f %11.2e %8.1f\n", name.c_str(), row.pass, row.warning,
                  row.not_supported, row.expected, row.bad, row.worst, row.max_abs, row.milliseconds / 1000.0);
    out << line;
  }
  out << totals(summary) << "; " << summary.executed() << " of " << summary.results.size() << " executed in "
      << format("%.1f", summary.seconds) << " s\n";
  return out.str();
}

std::string json_lines(const RunSummary& summary) {
  std::string text = summary.header.empty() ? "" : summary.header + '\n';
  for (const CaseResult& r : summary.results) text += to_json_line(r) + '\n';
  nlohmann::ordered_json j{{"type", "summary"}};
  for (std::uint32_t s = 0; s < static_cast<std::uint32_t>(CaseStatus::count); ++s)
    j[std::string(status_name(static_cast<CaseStatus>(s)))] = summary.count(static_cast<CaseStatus>(s));
  j["executed"] = summary.executed();
  j["wall_s"] = summary.seconds;
  if (!summary.error.empty()) j["error"] = summary.error;
  return text + j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

std::string markdown_report(const RunSummary& summary, const std::string& command, const std::string& previous) {
  std::ostringstream out;
  out << "# Conformance report\n\n";
  const auto header = nlohmann::json::parse(summary.header, nullptr, false);
  out << (summary.good() ? "**Passed.** " : "**Not passed.** ") << totals(summary) << "; " << summary.executed() << " of "
      << summary.results.size() << " cases executed in " << format("%.0f", summary.seconds) << " s.\n";
  if (!summary.error.empty()) out << "\nError: " << summary.error << "\n";
  out << "\n## What ran\n\n- command: `" << command << "`\n";
  if (header.is_object()) {
    for (const auto& [key, value] : header.items())
      if (key != "type" && key != "device") out << "- " << key << ": " << value.dump() << "\n";
    out << "\n## Device\n\n";
    const nlohmann::json device = header.value("device", nlohmann::json::object());
    for (const auto& [key, value] : device.items())
      out << "- " << key << ": " << value.dump() << "\n";
  }
  out << "\n## Results\n\n| operation | pass | warning | not supported | expected | bad | worst error, of its limit | max error |\n"
      << "|---|---:|---:|---:|---:|---:|---:|---:|\n";
  for (const auto& [name, row] : rows_of(summary))
    out << "| " << name << " | " << row.pass << " | " << row.warning << " | " << row.not_supported << " | " << row.expected << " | "
        << row.bad << " | " << format("%.2f", row.worst) << " | " << format("%.2e", row.max_abs) << " |\n";

  std::map<std::string, std::size_t> missing;
  for (const CaseResult& r : summary.results)
    if (r.status == CaseStatus::not_supported) ++missing[r.message];
  if (!missing.empty()) {
    out << "\n## Not supported\n\n";
    for (const auto& [what, n] : missing) out << "- " << what << ": " << n << " cases\n";
  }
  bool any = false;
  for (const CaseResult& r : summary.results) {
    if (!is_bad(r.status)) continue;
    if (!any) out << "\n## Failures\n\n";
    any = true;
    out << "- `" << r.name << "`: " << status_name(r.status) << " at element " << r.figures.worst << ": " << r.message
        << "\n  repeat: `kvant conform --filter '" << r.name << "'`\n";
  }
  any = false;
  for (const CaseResult& r : summary.results) {
    if (r.status != CaseStatus::waived && r.status != CaseStatus::expected_fail) continue;
    if (!any) out << "\n## Waived and expected failures\n\n";
    any = true;
    out << "- `" << r.name << "`: " << r.message << "\n";
  }
  if (!previous.empty()) compare_with_previous(out, summary, previous);

  std::map<std::string, std::size_t> kernels;
  for (const CaseResult& r : summary.results)
    if (!r.kernel.empty()) ++kernels[r.kernel];
  out << "\n## Modules that ran\n\n";
  for (const auto& [kernel, n] : kernels) out << "- " << kernel << ": " << n << " cases\n";
  return out.str();
}

}  // namespace kvant::conformance
