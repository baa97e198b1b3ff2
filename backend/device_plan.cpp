#include "device_plan.hpp"

#include <algorithm>

#include "matrix_shape.hpp"
#include "quirks.hpp"

namespace kvant {
namespace {

// The portability floor: a device below it cannot run the tier-0 modules.
constexpr std::uint32_t kMinStorageBuffers = 8;
constexpr std::uint32_t kMinPushBytes = 128;
constexpr std::uint32_t kMinSharedBytes = 16 * 1024;
constexpr std::uint32_t kMinInvocations = 256;
constexpr std::uint32_t kMinGroupsY = 16384;  // attention takes a row of workgroups per query head
constexpr std::uint64_t kMinBindingBytes = 64 * 1024;

// Slabs above this size bring nothing and make growth coarse.
constexpr std::uint64_t kDefaultSlabBytes = 1ULL << 30;
constexpr std::uint64_t kSizeGranularity = 256;

constexpr std::uint32_t kNeededSubgroupOps =
    subgroup_basic | subgroup_vote | subgroup_arithmetic | subgroup_ballot | subgroup_shuffle;

struct Extension {
  const char* name;
  std::uint32_t core_minor;  // the 1.x that made it core; 0: never
  const char* feature;       // its bit in Vulkan's words
  bool DeviceFeatures::*enabled;
};

constexpr Extension kExtensions[] = {
    {"VK_KHR_shader_float16_int8", 2, "shaderFloat16", &DeviceFeatures::fp16},
    {"VK_KHR_timeline_semaphore", 2, "timelineSemaphore", &DeviceFeatures::timeline},
    {"VK_KHR_shader_integer_dot_product", 3, "shaderIntegerDotProduct", &DeviceFeatures::int_dot},
    {"VK_EXT_subgroup_size_control", 3, "subgroupSizeControl", &DeviceFeatures::subgroup_size_control},
    {"VK_EXT_subgroup_size_control", 3, "computeFullSubgroups", &DeviceFeatures::compute_full_subgroups},
    {"VK_KHR_vulkan_memory_model", 2, "vulkanMemoryModel", &DeviceFeatures::memory_model},
    {"VK_KHR_vulkan_memory_model", 2, "vulkanMemoryModelDeviceScope", &DeviceFeatures::memory_model},
    {"VK_KHR_cooperative_matrix", 0, "cooperativeMatrix", &DeviceFeatures::coopmat},
    {"VK_NV_cooperative_matrix2", 0, "cooperativeMatrixReductions", &DeviceFeatures::coopmat2},
    {"VK_KHR_pipeline_executable_properties", 0, "pipelineExecutableInfo", &DeviceFeatures::pipeline_statistics},
};

bool reachable(const DeviceSnapshot& s, const char* extension, std::uint32_t core_minor) {
  return (core_minor != 0 && s.api_version >= make_api_version(1, core_minor)) || s.has_extension(extension);
}

void reject_below(DevicePlan& plan, const char* what, std::uint64_t value, std::uint64_t floor) {
  if (value < floor)
    plan.rejected.push_back(std::string(what) + " (" + std::to_string(value) + ") is below " + std::to_string(floor));
}

// Prefers a family without graphics: it does not queue behind rendering.
void choose_queue(DevicePlan& plan) {
  const auto& families = plan.snapshot.queue_families;
  std::size_t best = families.size();
  for (std::size_t i = 0; i < families.size(); ++i) {
    if ((families[i].flags & queue_compute) == 0 || families[i].count == 0) continue;
    const bool alone = (families[i].flags & queue_graphics) == 0 && families[i].timestamp_bits != 0;
    if (best == families.size() || (alone && (families[best].flags & queue_graphics) != 0)) best = i;
  }
  if (best == families.size()) {
    plan.rejected.emplace_back("no queue family offers compute");
    return;
  }
  plan.queue_family = static_cast<std::uint32_t>(best);
  plan.timestamps = families[best].timestamp_bits != 0 && plan.snapshot.timestamp_period > 0.0F;
}

void check_floor(DevicePlan& plan) {
  const DeviceSnapshot& s = plan.snapshot;
  if (s.api_version < make_api_version(1, 1))
    plan.rejected.push_back("Vulkan version (" + version_text(s.api_version) + ") is below 1.1");
  reject_below(plan, "storage buffers per set", s.max_storage_buffers, kMinStorageBuffers);
  reject_below(plan, "push constant bytes", s.max_push_bytes, kMinPushBytes);
  reject_below(plan, "shared memory bytes", s.max_shared_bytes, kMinSharedBytes);
  reject_below(plan, "workgroup invocations", s.max_invocations, kMinInvocations);
  reject_below(plan, "workgroup size x", s.max_local_size[0], kMinInvocations);
  reject_below(plan, "workgroup count x", s.max_groups[0], 1);
  reject_below(plan, "workgroup count y", s.max_groups[1], kMinGroupsY);
  reject_below(plan, "workgroup count z", s.max_groups[2], 1);
  reject_below(plan, "binding bytes", s.max_binding_bytes, kMinBindingBytes);
  reject_below(plan, "allocation bytes", s.max_allocation_bytes, kMinBindingBytes);
  if (s.memory_types.empty()) {
    plan.compile_only = plan.rejected.empty();
    plan.rejected.emplace_back("it has no memory, so that it can compile but not run");
    return;
  }
  const bool mappable = std::any_of(s.memory_types.begin(), s.memory_types.end(),
                                    [](const MemoryType& type) { return (type.flags & memory_host_visible) != 0; });
  if (!mappable) plan.rejected.emplace_back("no memory type is host-visible");
}

void find_caps(DevicePlan& plan) {
  const DeviceSnapshot& s = plan.snapshot;
  plan.require_subgroup_size = s.subgroup_size_control && reachable(s, "VK_EXT_subgroup_size_control", 3);
  const bool size_known = plan.require_subgroup_size || s.subgroup_min_size == s.subgroup_max_size;
  plan.caps.subgroup = s.subgroup_in_compute && (s.subgroup_ops & kNeededSubgroupOps) == kNeededSubgroupOps &&
                       s.subgroup_size > 1 && size_known;
  plan.caps.fp16 = s.fp16 && reachable(s, "VK_KHR_shader_float16_int8", 2);
  plan.caps.int_dot = s.int_dot && reachable(s, "VK_KHR_shader_integer_dot_product", 3);
  // A driver without memory has no working semaphores either.
  plan.caps.timeline = s.timeline && !plan.compile_only && reachable(s, "VK_KHR_timeline_semaphore", 2);
  plan.caps.coopmat = s.coopmat && has_matrix_shapes(s) && s.has_extension("VK_KHR_cooperative_matrix") &&
                      s.api_version >= make_api_version(1, 2);  // of the module
  plan.caps.coopmat2 = s.coopmat2 && s.has_extension("VK_NV_cooperative_matrix2");
}

void derive_features(DevicePlan& plan) {
  const DeviceSnapshot& s = plan.snapshot;
  plan.caps.coopmat2 = plan.caps.coopmat2 && plan.caps.coopmat;
  DeviceFeatures& f = plan.features;
  f.fp16 = plan.caps.fp16;
  f.int_dot = plan.caps.int_dot;
  f.timeline = plan.caps.timeline;
  f.subgroup_size_control = plan.require_subgroup_size;
  f.compute_full_subgroups = plan.require_subgroup_size && s.compute_full_subgroups;
  f.coopmat = plan.caps.coopmat;
  f.coopmat2 = plan.caps.coopmat2;
  f.memory_model = plan.caps.coopmat;
  f.pipeline_statistics = s.pipeline_statistics && s.has_extension("VK_KHR_pipeline_executable_properties");
  for (const Extension& extension : kExtensions) {
    const bool core = extension.core_minor != 0 && s.api_version >= make_api_version(1, extension.core_minor);
    if (!(f.*extension.enabled) || core) continue;
    if (std::find(plan.extensions.begin(), plan.extensions.end(), extension.name) == plan.extensions.end())
      plan.extensions.emplace_back(extension.name);
  }
  // Vulkan asks that it be enabled wherever it is offered.
  if (s.has_extension("VK_KHR_portability_subset")) plan.extensions.emplace_back("VK_KHR_portability_subset");
}

std::uint32_t find_tier(const DevicePlan& plan) {
  const DeviceCaps& caps = plan.caps;
  if (!caps.fp16) return 0;
  if (!caps.subgroup) return 1;
  if (!caps.int_dot || !plan.snapshot.int_dot_accelerated) return 2;
  return caps.coopmat ? 4 : 3;
}

std::uint32_t find_parallel_workgroups(const DeviceSnapshot& s) {
  if (s.type == DeviceType::cpu) return std::max(1U, s.compute_units) * 2;  // twice the threads evens out the last ones
  if (s.compute_units != 0) return s.compute_units * 4;
  return s.type == DeviceType::discrete ? 256 : 64;
}

void derive_sizes(DevicePlan& plan) {
  const DeviceSnapshot& s = plan.snapshot;
  const std::uint64_t slab = std::min({s.max_allocation_bytes, s.max_buffer_bytes, kDefaultSlabBytes});
  plan.max_slab_bytes = slab / kSizeGranularity * kSizeGranularity;
  plan.max_binding_bytes = std::min(s.max_binding_bytes / kSizeGranularity * kSizeGranularity, plan.max_slab_bytes);
  plan.binding_alignment = std::max(16U, s.storage_alignment);
  plan.parallel_workgroups = find_parallel_workgroups(s);
  plan.subgroup_size = plan.caps.subgroup ? s.subgroup_size : 0;
}

int rank(DeviceType type) {
  switch (type) {
    case DeviceType::discrete:
      return 0;
    case DeviceType::integrated:
      return 1;
    case DeviceType::virtual_gpu:
      return 2;
    case DeviceType::cpu:
      return 3;
    case DeviceType::other:
      break;
  }
  return 4;
}

}  // namespace

Result<DevicePlan> make_device_plan(const DeviceSnapshot& snapshot, std::string_view quirks) {
  DevicePlan plan;
  plan.snapshot = snapshot;
  KVANT_ASSIGN(const std::vector<const Quirk*> active, resolve_quirks(snapshot, quirks));
  check_floor(plan);
  choose_queue(plan);
  find_caps(plan);
  for (const Quirk* quirk : active) {
    quirk->effect(plan);
    plan.quirks.push_back(quirk->name);
  }
  derive_features(plan);
  derive_sizes(plan);
  plan.tier = find_tier(plan);
  return plan;
}

std::uint32_t satisfied_needs(const DeviceCaps& caps) {
  return (caps.subgroup ? kernel_needs_subgroup : 0U) | (caps.fp16 ? kernel_needs_fp16 : 0U) |
         (caps.int_dot ? kernel_needs_int_dot : 0U) | (caps.coopmat ? kernel_needs_coopmat : 0U) |
         (caps.coopmat2 ? kernel_needs_coopmat2 : 0U);
}

bool kernel_available(KernelId kernel, const DevicePlan& plan) {
  const KernelInfo& info = kernel_info(kernel);
  return !info.spirv.empty() && (info.needs & ~satisfied_needs(plan.caps)) == 0;
}

Result<std::uint32_t> choose_device(const std::vector<DevicePlan>& plans) {
  std::size_t best = plans.size();
  std::string reasons;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    if (plans[i].usable()) {
      if (best == plans.size() || rank(plans[i].snapshot.type) < rank(plans[best].snapshot.type)) best = i;
      continue;
    }
    reasons += (reasons.empty() ? "" : "; ") + plans[i].snapshot.name + ": ";
    for (std::size_t r = 0; r < plans[i].rejected.size(); ++r) reasons += (r == 0 ? "" : ", ") + plans[i].rejected[r];
  }
  if (best != plans.size()) return static_cast<std::uint32_t>(best);
  if (plans.empty()) return Status(StatusCode::unavailable, "the Vulkan loader found no device");
  return Status(StatusCode::unavailable, "no Vulkan device is usable: " + reasons);
}

std::string recommended_features_json() {
  std::string extensions, features;
  std::string_view last;
  for (const Extension& extension : kExtensions) {
    if (last != extension.name) extensions += (extensions.empty() ? "\"" : ", \"") + std::string(extension.name) + "\"";
    last = extension.name;
    features += (features.empty() ? "\"" : ", \"") + std::string(extension.feature) + "\"";
  }
  return "{\"extensions\": [" + extensions + "], \"features\": [" + features + "]}";
}

}  // namespace kvant
