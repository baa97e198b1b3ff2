// Tuning of the attention kernel on cooperative matrices (shaders/attend_matrix.comp).
#pragma once

#include <optional>
#include <vector>

#include "device_plan.hpp"
#include "executor.hpp"
#include "matrix_shape.hpp"

namespace kvant {

bool uses_matrices(KernelId kernel);
MatrixShape matrix_shape_of(const AttendConfig& config);

// The kernel rounds to fp16: K and V must be of formats whose every value fp16 holds. A pass over the attention mass goes over the same
// items and takes fewer rows.
bool matrices_take(const AttendShape& shape);

std::uint64_t matrix_shared_bytes(const AttendConfig& config, const AttendShape& shape);
bool matrix_config_consistent(const AttendConfig& config, const AttendShape& shape);

// The config for the shape and device by the largest product that the device has and conformance has cases for; nothing where products are
// no gain (processors, few queries) or shared memory cannot hold the smallest tiles.
std::optional<AttendConfig> choose_matrix_config(const AttendShape& shape, const DevicePlan& plan);

// On any device: every product and subgroup size that choose_matrix_config knows, and those of conformance alone.
std::vector<AttendConfig> all_matrix_configs(const AttendShape& shape);

}  // namespace kvant
