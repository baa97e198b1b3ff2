// Supervisor: runs cases in worker processes, so that a crash or a hang costs one case and not the run. The parent never opens
// a device.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "result.hpp"
#include "session.hpp"

namespace kvant::conformance {

struct RunOptions {
  SessionOptions session;
  std::uint64_t seed = 1;
  std::string shard = "0/1";
  std::uint32_t jobs = 1;
  std::uint32_t timeout_seconds = 120;  // of one case
  std::string expectations;             // folder; empty: none
  bool fail_fast = false;               // the first bad result ends the run
};

struct RunSummary {
  std::vector<CaseResult> results;      // in the order of the list
  std::string header;                   // JSON of the first worker
  std::string error;                    // why nothing could be run, e.g. no device
  double seconds = 0.0;
  std::uint64_t validation_messages = 0;  // in cases and between them

  std::size_t count(CaseStatus status) const;
  std::size_t executed() const;         // neither not_supported nor waived
  bool good() const;                    // nothing bad, no validation message, and something was executed
};

// `progress` is called with each result as it comes.
RunSummary run_cases(const std::vector<const Case*>& cases, const RunOptions& options,
                     const std::function<void(const CaseResult&, std::size_t done)>& progress);
// The same in this process, for debuggers and tests; a crash ends it.
RunSummary run_cases_in_process(const std::vector<const Case*>& cases, const RunOptions& options,
                                const std::function<void(const CaseResult&, std::size_t done)>& progress);

}  // namespace kvant::conformance
