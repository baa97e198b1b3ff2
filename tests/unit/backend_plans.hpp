// Made-up devices for tests of tuning: the portability floor, a large GPU and a CPU driver.
#pragma once

#include "device_plan.hpp"

namespace kvant {

inline DevicePlan floor_device() {
  DevicePlan plan;
  plan.snapshot.type = DeviceType::integrated;
  plan.snapshot.max_shared_bytes = 16384;
  plan.snapshot.max_invocations = 256;
  plan.snapshot.max_local_size = {256, 256, 64};
  plan.parallel_workgroups = 16;
  return plan;
}

inline DevicePlan large_device(std::uint32_t subgroup_size, bool accelerated_dot) {
  DevicePlan plan = floor_device();
  plan.snapshot.type = DeviceType::discrete;
  plan.snapshot.max_shared_bytes = 49152;
  plan.snapshot.max_invocations = 1024;
  plan.snapshot.max_local_size = {1024, 1024, 64};
  plan.snapshot.subgroup_size = plan.snapshot.subgroup_min_size = plan.snapshot.subgroup_max_size = subgroup_size;
  plan.snapshot.int_dot = accelerated_dot;
  plan.snapshot.int_dot_accelerated = accelerated_dot;
  plan.caps.subgroup = true;
  plan.caps.fp16 = true;
  plan.caps.int_dot = accelerated_dot;
  plan.subgroup_size = subgroup_size;
  plan.parallel_workgroups = 512;
  return plan;
}

inline DevicePlan cpu_device() {
  DevicePlan plan = large_device(8, false);
  plan.snapshot.type = DeviceType::cpu;
  plan.snapshot.max_shared_bytes = 32768;
  plan.parallel_workgroups = 4;
  return plan;
}

}  // namespace kvant
