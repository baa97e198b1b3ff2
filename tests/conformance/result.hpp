// What a case came to: status, figures and the line of JSON that reports them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compare.hpp"

namespace kvant::conformance {

enum class CaseStatus : std::uint32_t {
  pass,
  quality_warning,   // within the limit, but beyond three quarters of it
  not_supported,     // the device or the build lacks what the case needs
  waived,            // a permanent limit, listed in the expectations
  expected_fail,     // a known failure, listed in the expectations
  unexpected_pass,   // listed as failing, but passes
  fail,
  resource_error,    // out of memory
  crash,
  timeout,
  device_lost,
  validation_error,  // right result, but the validation layer spoke
  internal_error,    // the suite itself is at fault: a blind check, disagreeing references
  count
};
std::string_view status_name(CaseStatus status);
bool status_from_name(std::string_view name, CaseStatus* status);
// Statuses that make a run fail.
bool is_bad(CaseStatus status);

struct CaseResult {
  std::string name;
  CaseStatus status = CaseStatus::pass;
  std::string check;      // exact, ulp or reduction
  std::string message;    // reason: of failure, of not_supported, of the waiver
  Comparison figures;
  std::string control;    // the fault that the check was shown to catch
  std::string kernel;     // the module that ran, and its constants
  std::vector<std::uint32_t> spec;
  double milliseconds = 0.0;
};

std::string to_json_line(const CaseResult& result);
bool from_json_line(const std::string& line, CaseResult* result);

}  // namespace kvant::conformance
