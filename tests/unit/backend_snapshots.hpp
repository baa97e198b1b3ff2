// The made-up and recorded devices of tests/snapshots/.
#pragma once

#include <doctest/doctest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "device_plan.hpp"

namespace kvant::test {

inline constexpr const char* kSnapshotNames[] = {"lavapipe",   "swiftshader",       "adreno_640",
                                                 "mali_g52",   "powervr_ge8320",    "nvidia_h200",
                                                 "rdna3_radv", "amd_windows_rdna2", "intel_windows_a770"};

inline DeviceSnapshot load_snapshot(const std::string& name) {
  std::ifstream stream(std::string(KVANT_SOURCE_DIR) + "/tests/snapshots/" + name + ".json");
  REQUIRE_MESSAGE(stream.good(), name);
  std::stringstream text;
  text << stream.rdbuf();
  auto snapshot = snapshot_from_json(text.str());
  REQUIRE_MESSAGE(snapshot.ok(), snapshot.status().message());
  return std::move(snapshot).value();
}

inline DevicePlan plan_for(const DeviceSnapshot& snapshot, const std::string& quirks = "") {
  auto plan = make_device_plan(snapshot, quirks);
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  return std::move(plan).value();
}
inline DevicePlan plan_for(const std::string& name, const std::string& quirks = "") {
  return plan_for(load_snapshot(name), quirks);
}

}  // namespace kvant::test
