// What kvant tune found, as a terminal table, as JSON and as a page with plots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kvant::tools {

struct TuneResult {
  std::string call;
  std::string chosen, best;  // config of tuning, of measuring; the same text where no other was quicker by enough
  double chosen_seconds = 0, best_seconds = 0;
  size_t candidates = 0;
  size_t skipped = 0;    // could not run: no memory, or the driver compiles them not
  bool complete = true;  // false: time ran out before every candidate was measured
};

struct TuneReport {
  std::string device, driver, commit;
  uint32_t rounds = 0;
  uint32_t tokens = 0;
  std::string path;  // what was written
  std::vector<TuneResult> results;
};

std::string tune_text(const TuneReport& report);
std::string tune_json(const TuneReport& report);
std::string tune_html(const TuneReport& report);

}  // namespace kvant::tools
