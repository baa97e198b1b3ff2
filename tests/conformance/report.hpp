// Reports of a conformance run: JSON Lines for machines, a Markdown page and a terminal table for people.
#pragma once

#include <string>
#include <vector>

#include "supervisor.hpp"

namespace kvant::conformance {

// Rows "operation or module" with counts and the worst error as a part of its limit, as aligned text.
std::string summary_table(const RunSummary& summary);
std::string json_lines(const RunSummary& summary);
// `command` is the command line; `previous` an earlier report in JSON Lines to compare with, or empty.
std::string markdown_report(const RunSummary& summary, const std::string& command, const std::string& previous);

}  // namespace kvant::conformance
