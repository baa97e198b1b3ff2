// DeviceSnapshot: every fact about a physical device that the backend decides on, as plain data without Vulkan headers.
// Read from a device by device_probe.hpp, to and from JSON here, narrowed by a capability override for tests.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "status.hpp"

namespace kvant {

class JsonWriter;

// Values of VkPhysicalDeviceType.
enum class DeviceType : std::uint32_t { other = 0, integrated = 1, discrete = 2, virtual_gpu = 3, cpu = 4 };
std::string_view device_type_name(DeviceType type);

// Bits of VkSubgroupFeatureFlagBits.
enum SubgroupOps : std::uint32_t {
  subgroup_basic = 1u << 0,
  subgroup_vote = 1u << 1,
  subgroup_arithmetic = 1u << 2,
  subgroup_ballot = 1u << 3,
  subgroup_shuffle = 1u << 4,
  subgroup_shuffle_relative = 1u << 5,
  subgroup_clustered = 1u << 6,
  subgroup_quad = 1u << 7,
};

// Bits of VkMemoryPropertyFlagBits.
enum MemoryFlags : std::uint32_t {
  memory_device_local = 1u << 0,
  memory_host_visible = 1u << 1,
  memory_host_coherent = 1u << 2,
  memory_host_cached = 1u << 3,
};

// Bits of VkQueueFlagBits.
enum QueueFlags : std::uint32_t { queue_graphics = 1u << 0, queue_compute = 1u << 1, queue_transfer = 1u << 2 };

struct MemoryHeap {
  std::uint64_t size = 0;
  bool device_local = false;
  bool operator==(const MemoryHeap&) const = default;
};

struct MemoryType {
  std::uint32_t flags = 0;  // VkMemoryPropertyFlags, all bits
  std::uint32_t heap = 0;
  bool operator==(const MemoryType&) const = default;
};

struct QueueFamily {
  std::uint32_t flags = 0;  // VkQueueFlags, all bits
  std::uint32_t count = 0;
  std::uint32_t timestamp_bits = 0;
  bool operator==(const QueueFamily&) const = default;
};

// A cooperative-matrix shape; component types are values of VkComponentTypeKHR (0 f16, 1 f32, 3 s8, 5 s32, 7 u8, 9
// u32).
struct CoopmatShape {
  std::uint32_t m = 0, n = 0, k = 0;
  std::uint32_t a_type = 0, b_type = 0, c_type = 0, result_type = 0;
  std::uint32_t scope = 3;  // VkScopeKHR: 2 workgroup, 3 subgroup
  bool operator==(const CoopmatShape&) const = default;
};

struct DeviceSnapshot {
  // Identity: an override may repeat these, never change them.
  std::string name;
  DeviceType type = DeviceType::other;
  std::uint32_t vendor_id = 0, device_id = 0;
  std::uint32_t driver_id = 0;       // VkDriverId; 0 when the driver does not say
  std::uint32_t driver_version = 0;  // as the vendor encodes it
  std::string driver_name, driver_info;
  std::array<std::uint8_t, 16> device_uuid{}, driver_uuid{}, pipeline_cache_uuid{};
  std::uint32_t compute_units = 0;  // SMs, CUs, cores; of a CPU device, hardware threads; 0 when unknown

  // Limits: an override may lower them (alignments: raise them).
  std::uint32_t api_version = 0;           // VK_MAKE_API_VERSION encoding; usable by us, not merely reported
  std::uint64_t max_binding_bytes = 0;     // maxStorageBufferRange
  std::uint64_t max_allocation_bytes = 0;  // maxMemoryAllocationSize
  std::uint64_t max_buffer_bytes = 0;      // maxBufferSize, or max_allocation_bytes where not reported
  std::uint32_t max_allocations = 0;
  std::uint32_t max_shared_bytes = 0;
  std::uint32_t max_invocations = 0;
  std::array<std::uint32_t, 3> max_local_size{};
  std::array<std::uint32_t, 3> max_groups{};
  std::uint32_t max_push_bytes = 0;
  std::uint32_t max_storage_buffers = 0;  // per stage and set, the smaller
  std::uint32_t storage_alignment = 1;    // minStorageBufferOffsetAlignment
  std::uint32_t copy_alignment = 1;       // optimalBufferCopyOffsetAlignment
  std::uint64_t non_coherent_atom = 1;
  float timestamp_period = 0.0F;  // nanoseconds per tick

  // Subgroups.
  std::uint32_t subgroup_size = 0;
  std::uint32_t subgroup_min_size = 0, subgroup_max_size = 0;
  std::uint32_t max_workgroup_subgroups = 0;
  std::uint32_t subgroup_ops = 0;  // SubgroupOps
  bool subgroup_in_compute = false;
  bool subgroup_size_control = false, compute_full_subgroups = false;

  // Features.
  bool fp16 = false, int8 = false, int16 = false, int64 = false;
  bool storage8 = false, storage16 = false;
  bool timeline = false;
  bool int_dot = false, int_dot_accelerated = false;  // 4x8-bit packed; accelerated: signed
  bool int_dot_mixed_accelerated = false;             // mixed signedness, packed
  bool buffer_device_address = false;
  bool robust_buffer_access = false, robustness2 = false, pipeline_robustness = false;
  bool host_query_reset = false;
  bool pipeline_statistics = false;  // VK_KHR_pipeline_executable_properties
  bool push_descriptor = false;
  bool memory_budget = false;
  bool fp16_rte = false, fp16_denorm_preserve = false;
  bool coopmat = false, coopmat2 = false;

  std::vector<CoopmatShape> coopmat_shapes;
  std::vector<MemoryHeap> heaps;
  std::vector<MemoryType> memory_types;
  std::vector<QueueFamily> queue_families;
  std::vector<std::string> extensions;  // device extensions, sorted

  bool has_extension(std::string_view extension) const;
  bool operator==(const DeviceSnapshot&) const = default;
};

// Text of an encoded version: "1.3.239".
std::string version_text(std::uint32_t api_version);
constexpr std::uint32_t make_api_version(std::uint32_t major, std::uint32_t minor) { return major << 22 | minor << 12; }

// A JSON object with a key per field. Missing keys keep their default; unknown keys and wrong types are errors.
std::string snapshot_to_json(const DeviceSnapshot& snapshot);
void write_snapshot(JsonWriter& json, const DeviceSnapshot& snapshot);
Result<DeviceSnapshot> snapshot_from_json(std::string_view text);

// Applies a JSON object of snapshot keys that lowers what the device offers. Errors: invalid_argument naming the key,
// for an unknown key, a wrong type, a changed identity or a value that would widen the device.
Status narrow_snapshot(DeviceSnapshot& snapshot, std::string_view override_json);

}  // namespace kvant
