// What tuning chooses on a device for common shapes of attention, for reports.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device_plan.hpp"

namespace kvant::conformance {

struct TuningChoice {
  std::string shape;  // "q4_0 d128 g4 decode"
  std::string module;
  std::string config;  // as config_name()
  std::uint32_t subgroup_size = 0;
};

std::vector<TuningChoice> tuning_table(const DevicePlan& plan);

}  // namespace kvant::conformance
