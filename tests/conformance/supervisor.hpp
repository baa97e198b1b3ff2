// Supervisor: runs cases in worker processes, so that a crash or a hang costs one case and not the run. The parent never opens
// a device.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "result.hpp"
#include "resume.hpp"
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
  std::size_t worker_cases = 300;       // after which a worker ends, and with it what the driver kept of its pipelines
  EarlierRun earlier;                   // its results count as this run's; not for run_cases_in_process
};

struct RunSummary {
  std::vector<CaseResult> results;      // in the order of the list
  std::string header;                   // JSON of the first worker
  std::string error;                    // why nothing could be run, e.g. no device
  StatusCode error_code = StatusCode::ok;  // invalid_argument: what was asked for is wrong
  std::size_t kept = 0;                 // results of an earlier start of the run
  std::size_t workers = 0;              // processes, one after another or side by side
  double seconds = 0.0;                 // of this start
  std::uint64_t validation_messages = 0;  // in cases and between them

  std::size_t count(CaseStatus status) const;
  std::size_t executed() const;         // neither not_supported nor waived
  bool good() const;                    // nothing bad, no validation message, and something was executed
};

// Called as things come.
struct RunListener {
  std::function<void(const CaseResult&, std::size_t done)> result;
  std::function<void(const std::string& json)> header = [](const std::string&) {};  // once
  std::function<void(std::uint64_t count)> messages = [](std::uint64_t) {};         // of the validation layer
};

// Refuses `options.earlier` (as the summary's error) if that was a run of other software, device or cases.
RunSummary run_cases(const std::vector<const Case*>& cases, const RunOptions& options, const RunListener& listener);
// The same in this process, for debuggers and tests; a crash ends it.
RunSummary run_cases_in_process(const std::vector<const Case*>& cases, const RunOptions& options,
                                const RunListener& listener);

}  // namespace kvant::conformance
