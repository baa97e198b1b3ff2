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

std::map<std::string, Row> rows_of(const RunSummary& summary) {
  std::map<std::string, Row> rows;
  for (const CaseResult& r : summary.results) {
    Row& row = rows[operation_of(r)];
    if (r.status == CaseStatus::pass)
      ++row.pass;
    else if (r.status == CaseStatus::quality_warning)
      ++row.warning;
    else if (r.status == CaseStatus::not_supported)
      ++row.not_supported;
    else if (is_bad(r.status))
      ++row.bad;
    else
      ++row.expected;
    row.milliseconds += r.milliseconds;
    row.worst = std::max(row.worst, r.figures.fraction);
    row.max_abs = std::max(row.max_abs, r.figures.max_abs);
  }
  return rows;
}

}  // namespace

std::string fraction_text(double fraction) {
  return fraction >= kBeyondMeasure ? "beyond" : number_text("%.2f", fraction);
}

std::string summary_table(const RunSummary& summary) {
  std::ostringstream out;
  char line[160];
  std::snprintf(line, sizeof(line), "%-20s %6s %8s %13s %9s %6s %12s %11s %8s\n", "operation", "pass", "warning",
                "not supported", "expected", "bad", "of its limit", "max error", "seconds");
  out << line;
  for (const auto& [name, row] : rows_of(summary)) {
    std::snprintf(line, sizeof(line), "%-20s %6zu %8zu %13zu %9zu %6zu %12s %11.2e %8.1f\n", name.c_str(), row.pass,
                  row.warning, row.not_supported, row.expected, row.bad, fraction_text(row.worst).c_str(), row.max_abs,
                  row.milliseconds / 1000.0);
    out << line;
  }
  out << status_totals(summary) << "; " << summary.executed() << " of " << summary.results.size() << " executed in "
      << number_text("%.1f", summary.seconds) << " s";
  if (summary.kept != 0) out << " (" << summary.kept << " results are from an earlier start)";
  out << '\n';
  return out.str();
}

ReportSection operations_section(const RunSummary& summary) {
  ReportSection section{"Results by operation", {}, {}, {}, {}};
  section.columns = {"operation", "pass",   "warning", "not supported", "expected", "bad", "worst error, of its limit",
                     "max error", "seconds"};
  for (const auto& [name, row] : rows_of(summary))
    section.rows.push_back({name, std::to_string(row.pass), std::to_string(row.warning),
                            std::to_string(row.not_supported), std::to_string(row.expected), std::to_string(row.bad),
                            fraction_text(row.worst), number_text("%.2e", row.max_abs),
                            number_text("%.1f", row.milliseconds / 1000.0)});
  return section;
}

std::string json_lines(const RunSummary& summary) {
  std::string text = summary.header.empty() ? "" : summary.header + '\n';
  for (const CaseResult& r : summary.results) text += to_json_line(r) + '\n';
  nlohmann::ordered_json j{{"type", "summary"}};
  for (std::uint32_t s = 0; s < static_cast<std::uint32_t>(CaseStatus::count); ++s)
    j[std::string(status_name(static_cast<CaseStatus>(s)))] = summary.count(static_cast<CaseStatus>(s));
  j["executed"] = summary.executed();
  j["kept"] = summary.kept;
  j["wall_s"] = summary.seconds;
  j["validation_messages"] = summary.validation_messages;
  if (!summary.error.empty()) j["error"] = summary.error;
  return text + j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

}  // namespace kvant::conformance
