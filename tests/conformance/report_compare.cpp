// A report's comparison with an earlier one of the same device, read from that one's JSON Lines.
#include <map>
#include <sstream>

#include "report.hpp"

namespace kvant::conformance {

namespace {

std::map<std::string, CaseResult> parse_previous(const std::string& text) {
  std::map<std::string, CaseResult> previous;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    CaseResult r;
    if (from_json_line(line, &r)) previous[r.name] = r;
  }
  return previous;
}

}  // namespace

ReportSection compare_section(const RunSummary& summary, const std::string& previous) {
  ReportSection section{"Compared with the previous report", {}, {}, {}, {}};
  if (previous.empty()) {
    section.text.emplace_back("No previous report was given (`--previous`).");
    return section;
  }
  auto old_results = parse_previous(previous);
  section.columns = {"case", "before", "now"};
  std::size_t fresh = 0;
  for (const CaseResult& r : summary.results) {
    const auto found = old_results.find(r.name);
    if (found == old_results.end()) {
      ++fresh;
      continue;
    }
    const CaseResult& old = found->second;
    const bool changed =
        old.status != r.status && (is_bad(old.status) || is_bad(r.status) || old.status == CaseStatus::not_supported ||
                                   r.status == CaseStatus::not_supported);
    const bool grown = !is_bad(r.status) && old.figures.max_abs > 0.0 && r.figures.max_abs > 2.0 * old.figures.max_abs;
    if (changed)
      section.rows.push_back({r.name, std::string(status_name(old.status)), std::string(status_name(r.status))});
    else if (grown)
      section.rows.push_back({r.name, "error " + number_text("%.3g", old.figures.max_abs),
                              "error " + number_text("%.3g", r.figures.max_abs)});
    old_results.erase(found);
  }
  if (section.rows.empty()) {
    section.text.emplace_back("No new failure, no fix, no error grown beyond twice its size.");
    section.columns.clear();
  }
  section.facts = {{"cases that the previous report did not have", std::to_string(fresh)},
                   {"cases of the previous report that were not run now", std::to_string(old_results.size())}};
  return section;
}

}  // namespace kvant::conformance
