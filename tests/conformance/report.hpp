// Reports of a conformance run: JSON Lines for machines, a terminal table and a page of nine parts for people.
#pragma once

#include <string>

#include "report_page.hpp"
#include "supervisor.hpp"

namespace kvant::conformance {

// Rows by operation or module with counts and the worst error as a part of its limit, as aligned text.
std::string summary_table(const RunSummary& summary);
std::string json_lines(const RunSummary& summary);

struct ReportContext {
  std::string command;   // the whole command line
  std::string repeat;    // options that a single case needs to be run again in the same way; may be empty
  std::string environment;  // variables in front of it, each with a space behind; may be empty
  std::string previous;  // an earlier report in JSON Lines to compare with; empty: none
};
// Statement, device, results (by operation; by formats), not supported, failures, waivers, comparison, relations,
// modules and configs. Parts without content say so.
ReportPage build_report(const RunSummary& summary, const ReportContext& context);

// Parts of the page, and what they share.
ReportSection operations_section(const RunSummary& summary);
ReportSection compare_section(const RunSummary& summary, const std::string& previous);
std::string number_text(const char* pattern, double x);
// A worst error as a part of its limit; "beyond" where it has no ratio to it.
std::string fraction_text(double fraction);
std::string status_totals(const RunSummary& summary);
std::string operation_of(const CaseResult& result);  // the name's first part: append, attend_decode_f16, ...

}  // namespace kvant::conformance
