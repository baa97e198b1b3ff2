// docs/monitoring.md names every family, event kind, metric, rule and JSON key that the code has, and no family and no key that it
// has not.
#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "event_ring.hpp"
#include "monitor_json.hpp"
#include "monitor_rules.hpp"
#include "stats_prometheus_checker.hpp"
#include "stats_sample.hpp"

namespace kvant {
namespace {

std::string page_text() {
  std::ifstream file(KVANT_SOURCE_DIR "/docs/monitoring.md");
  std::stringstream stream;
  stream << file.rdbuf();
  REQUIRE_FALSE(stream.str().empty());
  return stream.str();
}

// The first cells of the table between <!-- name --> and <!-- end of name -->.
std::multiset<std::string> documented(const std::string& page, const std::string& name) {
  const std::size_t begin = page.find("<!-- " + name + " -->"), end = page.find("<!-- end of " + name + " -->");
  REQUIRE(begin != std::string::npos);
  REQUIRE(end != std::string::npos);
  std::multiset<std::string> keys;
  std::istringstream lines(page.substr(begin, end - begin));
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("| `")) keys.insert(line.substr(3, line.find('`', 3) - 3));
  return keys;
}

// Paths of all values that are no objects and no arrays of objects; `names` are written as `<group>`.
void add_paths(const nlohmann::json& value, const std::string& path, const std::set<std::string>& names,
               const std::string& group, std::set<std::string>& paths) {
  if (value.is_object()) {
    for (const auto& [key, inner] : value.items())
      add_paths(inner, path + (path.empty() ? "" : ".") + (names.contains(key) ? group : key), names, group, paths);
  } else if (value.is_array() && !value.empty() && value[0].is_object()) {
    for (const auto& inner : value) add_paths(inner, path + "[]", names, group, paths);
  } else {
    paths.insert(path);
  }
}

void check_keys(const std::string& name, const std::set<std::string>& real) {
  const std::multiset<std::string> listed = documented(page_text(), name);
  CHECK(real.size() > 10);
  for (const std::string& key : real) {
    INFO(key);
    CHECK(listed.count(key) == 1);
  }
  for (const std::string& key : listed) {
    INFO(key);
    CHECK(real.contains(key));
  }
}

TEST_CASE("monitoring.md: its JSON keys are the snapshot's") {
  std::set<std::string> operations, paths;
  for (std::size_t i = 0; i < kOperations; ++i) operations.emplace(operation_name(static_cast<Operation>(i)));
  const nlohmann::json json = nlohmann::json::parse(stats_json(test::sample_stats()));
  for (const auto& [key, value] : json.items())
    add_paths(value, key, key == "latency" ? operations : std::set<std::string>(), "<operation>", paths);
  check_keys("stats keys", paths);

  // A monitor with intervals, and with advice: one that saw a corrupt entry.
  std::set<std::string> metrics, monitored;
  for (std::size_t i = 0; i < kMetrics; ++i) metrics.emplace(metric_name(static_cast<Metric>(i)));
  Monitor monitor;
  CacheStats stats = test::sample_stats();
  for (std::uint64_t i = 0; i < 12; ++i) {
    stats.tiers[0].stats.corrupt += 1;
    stats.tiers[0].stats.gets += 10;
    REQUIRE(monitor.observe(stats, 1000 * (i + 1)));
  }
  REQUIRE_FALSE(monitor.recommendations().empty());
  add_paths(nlohmann::json::parse(monitor_json(monitor)), "", metrics, "<metric>", monitored);
  check_keys("monitor keys", monitored);
}

TEST_CASE("monitoring.md: names what the code has") {
  const std::string page = page_text();
  const auto named = [&](std::string_view name) {
    INFO(name);
    CHECK(page.find('`' + std::string(name) + '`') != std::string::npos);
  };

  const Result<std::string> text = stats_prometheus(test::sample_stats(), {});
  REQUIRE(text.ok());
  test::PrometheusChecker checker;
  REQUIRE(checker.read(text.value()));
  for (const auto& [family, type] : checker.families()) named(family);
  const std::string_view begin = "`kvant_";
  for (std::size_t at = page.find(begin); at != std::string::npos; at = page.find(begin, at + 1)) {
    const std::string family = page.substr(at + 1, page.find('`', at + 1) - at - 1);
    INFO(family);
    CHECK(checker.families().contains(family));
  }
  for (std::uint32_t i = 0; i < kEventKinds; ++i) named(event_name(static_cast<EventKind>(i)));
  for (std::size_t i = 0; i < kOperations; ++i) named(operation_name(static_cast<Operation>(i)));
  for (std::size_t i = 0; i < kEvictionCauses; ++i) named(eviction_cause_name(static_cast<EvictionCause>(i)));
  for (std::size_t i = 0; i < kMetrics; ++i) named(metric_name(static_cast<Metric>(i)));
  for (const MonitorRule& rule : monitor_rules()) named(rule.name);
}

}  // namespace
}  // namespace kvant
