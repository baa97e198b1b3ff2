// What the monitor recommends: a row a rule, with the condition under which it speaks and what it says.
#pragma once

#include <span>

#include "monitor.hpp"

namespace kvant {

struct MonitorFacts {
  const CacheStats* now = nullptr;  // the latest snapshot, without sequences
  Interval early, late, whole;      // first quarter, last quarter and all of the window
  bool enough = false;              // as many intervals as a trend needs
  double most_used = 0;             // largest used_share of the window
  std::array<Trend, kMetrics> trends = {Trend::stable, Trend::stable, Trend::stable, Trend::stable,
                                        Trend::stable, Trend::stable, Trend::stable};
  Trend trend(Metric metric) const { return trends[static_cast<std::size_t>(metric)]; }
};

struct MonitorRule {
  std::string_view name;
  bool (*applies)(const MonitorFacts&);
  std::string (*text)(const MonitorFacts&);  // only where it applies
};
std::span<const MonitorRule> monitor_rules();

}  // namespace kvant
