// docs/monitoring.md names every family, event kind, metric and rule that the code has, and no family that it has not.
#include <doctest/doctest.h>

#include <fstream>
#include <sstream>

#include "event_ring.hpp"
#include "monitor_rules.hpp"
#include "stats_prometheus_checker.hpp"
#include "stats_sample.hpp"

namespace kvant {
namespace {

TEST_CASE("monitoring.md: names what the code has") {
  std::ifstream file(KVANT_SOURCE_DIR "/docs/monitoring.md");
  std::stringstream stream;
  stream << file.rdbuf();
  const std::string page = stream.str();
  REQUIRE_FALSE(page.empty());
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
