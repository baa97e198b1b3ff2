// ReportPage: what a conformance report says, as headings, facts and tables, before it becomes Markdown or HTML. Plain
// data, so that a renderer needs nothing of the suite.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace kvant::conformance {

struct ReportSection {
  std::string heading;
  std::vector<std::string> text;                           // paragraphs
  std::vector<std::pair<std::string, std::string>> facts;  // what, and its value
  std::vector<std::string> columns;                        // of a table; empty: none
  std::vector<std::vector<std::string>> rows;
};

struct ReportPage {
  std::string title;
  std::vector<ReportSection> sections;
};

std::string markdown(const ReportPage& page);

}  // namespace kvant::conformance
