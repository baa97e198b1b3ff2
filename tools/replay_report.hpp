// The figures of `kvant replay` as a terminal table, as JSON and as a page with plots.
#pragma once

#include <string>
#include <vector>

#include "replay_run.hpp"

namespace kvant::tools {

struct ReplayRow {
  uint64_t capacity_bytes = 0;
  std::string policy;
  ReplayFigures figures;
};

struct ReplayReport {
  std::string command;
  std::string trace;
  bool paths = true;  // pages with prefixes, or independent objects
  bool exact = true;  // the optimum is one; else a bound (objects of unequal sizes)
  uint64_t requests = 0, distinct_pages = 0, distinct_bytes = 0;
  ReplayFigures infinite;
  std::vector<ReplayRow> optimum;  // one a capacity
  std::vector<ReplayRow> rows;     // of each capacity, all policies
};

std::string replay_text(const ReplayReport& report);
std::string replay_json(const ReplayReport& report);
std::string replay_html(const ReplayReport& report);

}  // namespace kvant::tools
