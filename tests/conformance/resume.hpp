// A run that was cut short goes on: its JSON Lines say what it was and what it found.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "result.hpp"

namespace kvant::conformance {

struct EarlierRun {
  std::string header;                         // JSON; empty: there is none
  std::map<std::string, CaseResult> results;  // by name; bad ones are left out, they run again
  std::uint64_t messages = 0;                 // of the validation layer
};

// From the JSON Lines of a run, whole or cut off anywhere. Lines that cannot be read are passed over.
EarlierRun parse_earlier_run(const std::string& json_lines);
// The first member in which two headers differ, as a sentence; empty if they agree.
std::string difference(const std::string& earlier_header, const std::string& header);
std::string messages_json(std::uint64_t count);

}  // namespace kvant::conformance
