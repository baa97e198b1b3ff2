// Puts a report together from a run's results, and renders it as Markdown.
#include "report.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "formats.hpp"

namespace kvant::conformance {

namespace {

using Json = nlohmann::json;

std::vector<std::string> parts_of(const std::string& name) {
  std::vector<std::string> parts;
  std::istringstream stream(name);
  for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
  return parts;
}

bool is_format(const std::string& text) {
  return std::any_of(formats().begin(), formats().end(), [&](const FormatInfo& f) { return f.name == text; });
}

// "q4_0-f16", "nf4": the part of a case's name that tells its formats; "none" for operations on plain numbers.
std::string formats_of(const CaseResult& result) {
  for (const std::string& part : parts_of(result.name)) {
    const std::size_t dash = part.find('-');
    if (is_format(part.substr(0, dash)) && (dash == std::string::npos || is_format(part.substr(dash + 1)))) return part;
  }
  return "none";
}

std::string plain(const Json& value) {
  if (value.is_string() && !value.get<std::string>().empty()) return value.get<std::string>();
  if (value.is_string() || value == Json::object()) return "none";
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const Json& element : value) text += (text.empty() ? "" : ", ") + plain(element);
  return text.empty() ? "none" : text;
}

void add_facts(ReportSection& section, const Json& object, const std::set<std::string>& without) {
  for (const auto& [key, value] : object.items())
    if (!without.contains(key)) section.facts.emplace_back(key, plain(value));
}

ReportSection statement(const RunSummary& summary, const Json& header, const ReportContext& context) {
  ReportSection section{"Statement", {}, {}, {}, {}};
  double milliseconds = 0.0;
  for (const CaseResult& result : summary.results) milliseconds += result.milliseconds;
  section.text.push_back(std::string(summary.good() ? "Passed: " : "Not passed: ") + status_totals(summary) + "; " +
                         std::to_string(summary.executed()) + " of " + std::to_string(summary.results.size()) +
                         " cases executed in " + number_text("%.0f", milliseconds / 1000.0) + " s, all workers together; " +
                         std::to_string(summary.validation_messages) + " validation messages.");
  if (!summary.error.empty()) section.text.push_back("Error: " + summary.error + ".");
  if (header.value("device", Json::object()).value("type", "") == "cpu")
    section.text.emplace_back("This is a software device: the report speaks of results, not of speed.");
  section.facts.emplace_back("command", context.command);
  add_facts(section, header,
            {"type", "device", "quirks", "overrides", "validation_layers", "os", "processor", "tuning"});
  return section;
}

ReportSection device(const Json& header) {
  ReportSection section{"Device and driver", {}, {}, {}, {}};
  add_facts(section, header.value("device", Json::object()), {});
  for (const char* key : {"quirks", "overrides", "validation_layers", "os", "processor"})
    if (header.contains(key)) section.facts.emplace_back(key, plain(header[key]));
  return section;
}

ReportSection by_formats(const RunSummary& summary) {
  struct Cell {
    std::size_t pass = 0, executed = 0, all = 0;
    double worst = 0.0;
  };
  std::map<std::string, std::map<std::string, Cell>> table;
  std::set<std::string> operations;
  for (const CaseResult& r : summary.results) {
    const std::string operation = operation_of(r);
    operations.insert(operation);
    Cell& cell = table[formats_of(r)][operation];
    ++cell.all;
    if (r.status == CaseStatus::not_supported || r.status == CaseStatus::waived) continue;
    ++cell.executed;
    if (is_bad(r.status) || r.status == CaseStatus::expected_fail) continue;
    ++cell.pass;
    cell.worst = std::max(cell.worst, r.figures.fraction);
  }
  ReportSection section{"Results by formats and module", {}, {}, {}, {}};
  section.text.emplace_back(
      "Passed of executed cases, and the worst error as a part of its limit where the limit is not equality. "
      "A dash: no case; n/s: cases, but none that this device supports.");
  section.columns = {"formats"};
  section.columns.insert(section.columns.end(), operations.begin(), operations.end());
  for (const auto& [pair, cells] : table) {
    std::vector<std::string> row{pair};
    for (const std::string& operation : operations) {
      const auto found = cells.find(operation);
      if (found == cells.end())
        row.emplace_back("-");
      else if (found->second.executed == 0)
        row.emplace_back("n/s");
      else
        row.push_back(std::to_string(found->second.pass) + "/" + std::to_string(found->second.executed) +
                      (found->second.worst > 0.0 ? " " + number_text("%.2f", found->second.worst) : ""));
    }
    section.rows.push_back(std::move(row));
  }
  return section;
}

ReportSection not_supported(const RunSummary& summary) {
  std::map<std::string, std::map<std::string, std::size_t>> missing;
  for (const CaseResult& r : summary.results)
    if (r.status == CaseStatus::not_supported) ++missing[r.message][operation_of(r)];
  ReportSection section{"Not supported", {}, {}, {"what is missing", "cases", "of"}, {}};
  for (const auto& [what, operations] : missing) {
    std::size_t all = 0;
    std::string names;
    for (const auto& [name, n] : operations) {
      all += n;
      names += (names.empty() ? "" : ", ") + name + " " + std::to_string(n);
    }
    section.rows.push_back({what, std::to_string(all), names});
  }
  if (missing.empty()) {
    section.text.emplace_back("Nothing: every case was executed or waived.");
    section.columns.clear();
  }
  return section;
}

ReportSection failures(const RunSummary& summary, const ReportContext& context) {
  ReportSection section{"Failures", {}, {}, {"case", "status", "worst element", "what was seen", "repeat"}, {}};
  for (const CaseResult& r : summary.results)
    if (is_bad(r.status))
      section.rows.push_back({r.name, std::string(status_name(r.status)), std::to_string(r.figures.worst), r.message,
                              context.environment + "kvant conform --filter '" + r.name + "'" + context.repeat});
  if (section.rows.empty()) {
    section.text.emplace_back("None.");
    section.columns.clear();
  }
  return section;
}

ReportSection waivers(const RunSummary& summary) {
  ReportSection section{"Waived and expected failures", {}, {}, {"case", "status", "reason and link"}, {}};
  for (const CaseResult& r : summary.results)
    if (r.status == CaseStatus::waived || r.status == CaseStatus::expected_fail)
      section.rows.push_back({r.name, std::string(status_name(r.status)), r.message});
  if (section.rows.empty()) {
    section.text.emplace_back("None.");
    section.columns.clear();
  }
  return section;
}

// Relation cases: their name's second part tells which two ways must agree, their check whether bit for bit.
ReportSection relations(const RunSummary& summary) {
  struct Row {
    std::size_t pass = 0, not_supported = 0, other = 0;
    std::set<std::string> checks;
    double worst = 0.0;
  };
  std::map<std::string, Row> rows;
  for (const CaseResult& r : summary.results) {
    const auto parts = parts_of(r.name);
    if (parts.size() < 2 || parts[0] != "relation") continue;
    Row& row = rows[parts[1]];
    if (!r.check.empty()) row.checks.insert(r.check);
    row.worst = std::max(row.worst, r.figures.fraction);
    if (r.status == CaseStatus::pass || r.status == CaseStatus::quality_warning)
      ++row.pass;
    else if (r.status == CaseStatus::not_supported)
      ++row.not_supported;
    else
      ++row.other;
  }
  ReportSection section{"Determinism and metamorphic checks",
                        {},
                        {},
                        {"two ways", "agreement", "pass", "not supported", "not passed", "worst error, of its limit"},
                        {}};
  for (const auto& [kind, row] : rows) {
    std::string agreement;
    for (const std::string& check : row.checks)
      agreement +=
          (agreement.empty() ? "" : ", ") + std::string(check == "exact" ? "bit for bit" : "both within the bounds");
    section.rows.push_back({kind, agreement.empty() ? "not executed" : agreement, std::to_string(row.pass),
                            std::to_string(row.not_supported), std::to_string(row.other),
                            fraction_text(row.worst)});
  }
  if (rows.empty()) {
    section.text.emplace_back("No relation case was selected.");
    section.columns.clear();
  }
  return section;
}

ReportSection modules(const RunSummary& summary) {
  std::map<std::string, std::pair<std::size_t, std::set<std::vector<std::uint32_t>>>> kernels;
  for (const CaseResult& r : summary.results) {
    if (r.kernel.empty()) continue;
    auto& [cases, specs] = kernels[r.kernel];
    ++cases;
    specs.insert(r.spec);
  }
  ReportSection section{"Modules that ran", {}, {}, {"module", "cases", "sets of constants"}, {}};
  section.text.emplace_back(
      "A set of specialization constants is one pipeline: shape, formats and config. The JSON Lines have them by "
      "case.");
  for (const auto& [name, entry] : kernels)
    section.rows.push_back({name, std::to_string(entry.first), std::to_string(entry.second.size())});
  return section;
}

ReportSection tuning(const Json& header) {
  ReportSection section{
      "What tuning chooses on this device", {}, {}, {"shape", "module", "config", "subgroup size"}, {}};
  section.text.emplace_back(
      "Local size x heads per tile x queries per item x keys per item. Cases force configs; these are what calls get.");
  for (const Json& entry : header.value("tuning", Json::array()))
    section.rows.push_back({entry.value("shape", ""), entry.value("module", ""), entry.value("config", ""),
                            std::to_string(entry.value("subgroup_size", 0))});
  if (section.rows.empty()) section.text = {"No device, no choice: the CPU reference ran."};
  return section;
}

bool numeric(const ReportSection& section, std::size_t column) {
  return !section.rows.empty() && std::all_of(section.rows.begin(), section.rows.end(), [&](const auto& row) {
    return column < row.size() && !row[column].empty() &&
           row[column].find_first_not_of("0123456789.e+-") == std::string::npos;
  });
}

std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? "\\|" : c == '\n' ? " " : std::string(1, c);
  return out;
}

}  // namespace

std::string number_text(const char* pattern, double x) {
  char text[48];
  std::snprintf(text, sizeof(text), pattern, x);
  return text;
}

std::string operation_of(const CaseResult& result) { return result.name.substr(0, result.name.find('.')); }

std::string status_totals(const RunSummary& summary) {
  std::string text;
  for (std::uint32_t s = 0; s < static_cast<std::uint32_t>(CaseStatus::count); ++s) {
    const auto status = static_cast<CaseStatus>(s);
    const std::size_t n = summary.count(status);
    if (n != 0 || status == CaseStatus::pass || status == CaseStatus::fail)
      text += (text.empty() ? "" : ", ") + std::string(status_name(status)) + " " + std::to_string(n);
  }
  return text;
}

ReportPage build_report(const RunSummary& summary, const ReportContext& context) {
  Json header = Json::parse(summary.header, nullptr, false);
  if (!header.is_object()) header = Json::object();
  const std::string name = header.value("device", Json::object()).value("name", "no device");
  return {"Conformance report: " + name,
          {statement(summary, header, context), device(header), operations_section(summary), by_formats(summary),
           not_supported(summary), failures(summary, context), waivers(summary),
           compare_section(summary, context.previous), relations(summary), modules(summary), tuning(header)}};
}

std::string markdown(const ReportPage& page) {
  std::ostringstream out;
  out << "# " << page.title << "\n";
  for (const ReportSection& section : page.sections) {
    out << "\n## " << section.heading << "\n";
    for (const std::string& text : section.text) out << "\n" << text << "\n";
    if (!section.facts.empty()) out << "\n";
    for (const auto& [what, value] : section.facts) out << "- " << what << ": `" << value << "`\n";
    if (section.columns.empty()) continue;
    out << "\n|";
    for (const std::string& column : section.columns) out << " " << cell(column) << " |";
    out << "\n|";
    for (std::size_t i = 0; i < section.columns.size(); ++i) out << (numeric(section, i) ? "---:|" : "---|");
    out << "\n";
    for (const auto& row : section.rows) {
      out << "|";
      for (const std::string& text : row) out << " " << cell(text) << " |";
      out << "\n";
    }
  }
  return out.str();
}

}  // namespace kvant::conformance
