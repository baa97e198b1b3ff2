// Tuning: how to run a kernel on a device, as pure functions of the call's shape and the device plan. Performance only;
// correctness belongs to quirks.hpp. Every config that these functions return is valid: attend_config_valid() is the
// contract of the attention kernels' constants.
#pragma once

#include <vector>

#include "device_plan.hpp"
#include "executor.hpp"

namespace kvant {

// Names of AttendConfig::tune for the attention kernels.
inline constexpr std::size_t kTuneKLanes = 0;  // lanes that share a token's K row; a power of two
inline constexpr std::size_t kTuneVLanes = 1;  // lanes that share a token's V row; at least one per 32 elements
inline constexpr std::size_t kTuneChunk = 2;   // tokens in shared memory at once
inline constexpr std::size_t kTuneTouch = 3;   // of attend_decode_sg, 1: lines of K and V are touched before they are gathered, for CPU drivers
// Of the kernel on cooperative matrices, beside the chunk: rows, columns and depth of a product.
inline constexpr std::size_t kTuneMatrixM = 0, kTuneMatrixN = 1, kTuneMatrixK = 3;

inline constexpr std::uint32_t kMaxAttendRows = 8;  // heads_per_tile * queries_per_item, but for matrices

AttendConfig choose_attend_config(const AttendShape& shape, const DevicePlan& plan);
// Sets the length of items: so short that each of `workgroups` has work, but never shorter than an item's fixed cost is worth.
void cut_items(AttendConfig& config, const AttendShape& shape, std::uint32_t workgroups);
PageKernelConfig choose_page_kernel_config(KernelId kernel, const DevicePlan& plan);

// The kernel loops over chunks, so that an item may have any length.
bool attend_kernel_loops(KernelId kernel);
// Bytes of shared memory that the config's pipeline takes; as in shaders/include/attend_shared.glsl and matrix_shared.glsl.
std::uint64_t attend_shared_bytes(const AttendConfig& config, const AttendShape& shape);

// The config keeps the kernel's rules for this shape, on any device.
bool attend_config_consistent(const AttendConfig& config, const AttendShape& shape);
// It also fits this device: module built, capabilities met, shared memory, invocations and subgroup size within limits.
bool attend_config_valid(const AttendConfig& config, const AttendShape& shape, const DevicePlan& plan);

// Configs that tuning can choose for the shape on some device, every attention kernel among them, in a fixed order.
std::vector<AttendConfig> all_attend_configs(const AttendShape& shape);
// Those that are valid on this device.
std::vector<AttendConfig> all_attend_configs(const AttendShape& shape, const DevicePlan& plan);

}  // namespace kvant
