// Expectations: per driver, the cases that are known not to pass. tests/expectations/<driver>.txt, a line each:
//   pattern | waived or expected_fail | part of the driver's version text, or * | URL | reason
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "result.hpp"
#include "status.hpp"

namespace kvant::conformance {

struct Expectation {
  std::string pattern;  // of case names, with * and ?
  CaseStatus status = CaseStatus::expected_fail;
  std::string driver, url, reason;
};

// "llvmpipe", "swiftshader": the first word of the driver's name, in lower case.
std::string driver_key(std::string_view driver_name);
bool matches(std::string_view pattern, std::string_view name);

// Whether some case of the whole list matches a pattern: a line that none matches is an error.
using KnownPattern = std::function<bool(std::string_view pattern)>;
Result<std::vector<Expectation>> parse_expectations(std::string_view text, std::string_view source,
                                                    const KnownPattern& known_pattern);
// Those for the driver at hand; none if the folder has no file for it. Errors: invalid_argument if there is no such folder.
Result<std::vector<Expectation>> load_expectations(const std::string& folder, std::string_view driver_name,
                                                   std::string_view driver_info, const KnownPattern& known_pattern);
// A listed case that fails becomes waived or expected_fail; one that passes becomes unexpected_pass.
void apply_expectations(const std::vector<Expectation>& expectations, CaseResult& result);

}  // namespace kvant::conformance
