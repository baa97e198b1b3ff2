// DevicePlan: what to do with a device, decided from its snapshot by pure code: usable or why not, features and
// extensions to enable, queue family, capabilities, sizes. The plan carries its snapshot, so it is all that tuning
// needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "device_snapshot.hpp"
#include "kernel_table.hpp"
#include "status.hpp"

namespace kvant {

// What kernels and executor may use.
struct DeviceCaps {
  bool subgroup = false;  // basic, vote, arithmetic, ballot, shuffle in compute, with a size that we can know
  bool fp16 = false;      // fp16 arithmetic
  bool int_dot = false;   // packed 4x8-bit integer dot product (accelerated or not: snapshot.int_dot_accelerated)
  bool coopmat = false;   // VK_KHR_cooperative_matrix with a product of f16 and sums of f32, of subgroup scope
  bool coopmat2 = false;  // VK_NV_cooperative_matrix2
  bool timeline = false;  // timeline semaphores; otherwise fences
  bool operator==(const DeviceCaps&) const = default;
};

// Features to enable at device creation.
struct DeviceFeatures {
  bool fp16 = false, int_dot = false, timeline = false;
  bool subgroup_size_control = false, compute_full_subgroups = false;
  bool coopmat = false, coopmat2 = false, memory_model = false;
  bool pipeline_statistics = false;
  bool operator==(const DeviceFeatures&) const = default;
};

struct DevicePlan {
  DeviceSnapshot snapshot;
  std::vector<std::string> rejected;  // reasons why the device cannot be used; empty: usable
  bool compile_only = false;          // rejected for want of memory alone (a null driver): may be opened to compile
  DeviceCaps caps;
  DeviceFeatures features;
  std::vector<std::string> extensions;  // device extensions to enable
  std::uint32_t tier = 0;  // 0 floor, 1 fp16, 2 + subgroups, 3 + accelerated integer dot, 4 + cooperative matrix
  std::uint32_t queue_family = 0;
  bool timestamps = false;             // the queue family writes timestamps
  bool require_subgroup_size = false;  // pipelines may demand a subgroup size
  std::uint32_t subgroup_size = 0;     // size to build for when a config has no wish of its own; 0 without subgroups
  std::uint64_t max_slab_bytes = 0;
  std::uint64_t max_binding_bytes = 0;
  std::uint32_t binding_alignment = 16;
  std::uint32_t parallel_workgroups = 1;
  bool use_pipeline_blob = true;         // keep a VkPipelineCache on disk
  std::vector<std::string_view> quirks;  // names of the active ones

  bool usable() const { return rejected.empty(); }
};

// `quirks` forces rows by name: "+name,-name". Errors: invalid_argument for an unknown name or a missing sign.
Result<DevicePlan> make_device_plan(const DeviceSnapshot& snapshot, std::string_view quirks);

// KernelNeed bits that the device meets.
std::uint32_t satisfied_needs(const DeviceCaps& caps);
// The kernel's module was built and the device meets its needs.
bool kernel_available(KernelId kernel, const DevicePlan& plan);

// Index into `plans` of the best usable one: discrete, integrated, virtual, CPU, other; then by order. Errors:
// unavailable, listing each device with its reasons.
Result<std::uint32_t> choose_device(const std::vector<DevicePlan>& plans);

// {"extensions": [...], "features": [...]}: all that a plan could enable, for engines that create the device
// themselves.
std::string recommended_features_json();

}  // namespace kvant
