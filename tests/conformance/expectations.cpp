#include "expectations.hpp"

#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace kvant::conformance {

namespace {

std::string trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

}  // namespace

std::string driver_key(std::string_view driver_name) {
  std::string key;
  for (const char c : driver_name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) break;
    key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return key;
}

// The classic two-pointer match: on a mismatch, go back to the last star and let it swallow one character more.
bool matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*') {
      ++p;
      ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Result<std::vector<Expectation>> parse_expectations(std::string_view text, std::string_view source,
                                                    const KnownPattern& known_pattern) {
  std::vector<Expectation> list;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const std::string content = trim(line);
    if (content.empty() || content[0] == '#') continue;
    std::array<std::string, 5> fields;
    std::size_t field = 0;
    for (const char c : content) {
      if (c == '|' && field + 1 < fields.size()) ++field;
      else fields[field] += c;
    }
    for (std::string& f : fields) f = trim(f);
    Expectation e{fields[0], CaseStatus::expected_fail, fields[2], fields[3], fields[4]};
    const bool known = status_from_name(fields[1], &e.status);
    const char* wrong = nullptr;
    if (field != 4)
      wrong = "there are not five fields";
    else if (!known || (e.status != CaseStatus::waived && e.status != CaseStatus::expected_fail))
      wrong = "the second field is neither waived nor expected_fail";
    else if (e.pattern.empty() || e.driver.empty() || e.reason.empty())
      wrong = "pattern, driver or reason is empty";
    else if (!known_pattern(e.pattern))
      wrong = "no case has such a name";
    if (wrong != nullptr)
      return Status(StatusCode::invalid_argument, std::string(source) + ":" + std::to_string(number) + ": " + wrong +
                                                      "; expected 'pattern | waived or expected_fail | driver | URL | reason'");
    list.push_back(std::move(e));
  }
  return list;
}

Result<std::vector<Expectation>> load_expectations(const std::string& folder, std::string_view driver_name,
                                                   std::string_view driver_info, const KnownPattern& known_pattern) {
  std::error_code unreadable;
  if (!std::filesystem::is_directory(folder, unreadable))
    return Status(StatusCode::invalid_argument, "the folder of expectations (" + folder + ") is none");
  const std::filesystem::path path = std::filesystem::path(folder) / (driver_key(driver_name) + ".txt");
  std::ifstream file(path);
  if (!file) return std::vector<Expectation>{};
  std::ostringstream text;
  text << file.rdbuf();
  KVANT_ASSIGN(std::vector<Expectation> all, parse_expectations(text.str(), path.filename().string(), known_pattern));
  std::vector<Expectation> list;
  for (Expectation& e : all)
    if (e.driver == "*" || driver_info.find(e.driver) != std::string_view::npos) list.push_back(std::move(e));
  return list;
}

void apply_expectations(const std::vector<Expectation>& expectations, CaseResult& result) {
  for (const Expectation& e : expectations) {
    if (!matches(e.pattern, result.name)) continue;
    if (result.status == CaseStatus::pass || result.status == CaseStatus::quality_warning) {
      result.status = CaseStatus::unexpected_pass;
      result.message = "listed as " + std::string(status_name(e.status)) + " (" + e.reason + ")";
    } else if (is_bad(result.status) && result.status != CaseStatus::internal_error) {
      result.message = e.reason + (e.url.empty() ? "" : " " + e.url) + "; was " + std::string(status_name(result.status)) + ": " +
                       result.message;
      result.status = e.status;
    }
    return;
  }
}

}  // namespace kvant::conformance
