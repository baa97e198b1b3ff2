#include "resume.hpp"

#include <nlohmann/json.hpp>
#include <sstream>

namespace kvant::conformance {

EarlierRun parse_earlier_run(const std::string& json_lines) {
  EarlierRun run;
  std::istringstream lines(json_lines);
  for (std::string line; std::getline(lines, line);) {
    CaseResult result;
    if (from_json_line(line, &result)) {
      if (!is_bad(result.status)) run.results[result.name] = result;
      continue;
    }
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_object()) continue;
    const auto type = j.find("type");
    if (type == j.end()) continue;
    if (*type == "header" && run.header.empty()) run.header = line;
    const char* count = *type == "messages" ? "count" : *type == "summary" ? "validation_messages" : nullptr;
    if (count != nullptr && j.contains(count) && j[count].is_number_unsigned()) run.messages += j[count].get<std::uint64_t>();
  }
  if (run.header.empty()) run = {};
  return run;
}

std::string difference(const std::string& earlier_header, const std::string& header) {
  if (earlier_header == header) return {};
  const auto a = nlohmann::ordered_json::parse(earlier_header, nullptr, false),
             b = nlohmann::ordered_json::parse(header, nullptr, false);
  std::string name = "text", was, is;
  for (const auto& [key, value] : b.items()) {
    if (a.is_object() && a.contains(key) && a[key] == value) continue;
    name = key;
    was = a.is_object() && a.contains(key) ? a[key].dump() : "nothing";
    is = value.dump();
    break;
  }
  return "the results to go on from are another run's: its " + name + " is " + was + ", this run's is " + is;
}

std::string messages_json(std::uint64_t count) {
  return nlohmann::ordered_json{{"type", "messages"}, {"count", count}}.dump();
}

}  // namespace kvant::conformance
