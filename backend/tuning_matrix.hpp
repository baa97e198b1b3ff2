// Tuning of the attention kernel on cooperative matrices (shaders/attend_matrix.comp).
#pragma once

#include <optional>
#include <vector>

#include "device_plan.hpp"
#include "executor.hpp"

namespace kvant {

// Sizes of a product, all of which the kernel takes as constants.
struct MatrixShape {
  std::uint32_t m = 0, n = 0, k = 0;
};

bool uses_matrices(KernelId kernel);

// The kernel rounds to fp16: K and V must be of formats whose every value fp16 holds. A pass over the attention mass goes over the same
// items and takes fewer rows.
bool matrices_take(const AttendShape& shape);

// Products of f16 with sums of f32, in a subgroup.
bool has_matrix_shapes(const DeviceSnapshot& snapshot);
bool has_matrix_shape(const DeviceSnapshot& snapshot, const MatrixShape& product);

std::uint64_t matrix_shared_bytes(const AttendConfig& config, const AttendShape& shape);
bool matrix_config_consistent(const AttendConfig& config, const AttendShape& shape);

// The config for the shape and device by the largest product that the device has and the list below names; nothing where products are
// no gain (processors, few queries) or shared memory cannot hold the smallest tiles.
std::optional<AttendConfig> choose_matrix_config(const AttendShape& shape, const DevicePlan& plan);

// On any device: every product and subgroup size that choose_matrix_config knows, and those of conformance alone.
std::vector<AttendConfig> all_matrix_configs(const AttendShape& shape);

}  // namespace kvant
