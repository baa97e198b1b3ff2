// Tuning of the attention kernel on cooperative matrices (shaders/attend_matrix.comp).
#pragma once

#include <optional>
#include <vector>

#include "device_snapshot.hpp"
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

// The largest f16 product with f32 sums that the device has and the kernel can take.
std::optional<MatrixShape> choose_matrix_shape(const DeviceSnapshot& snapshot);
bool has_matrix_shape(const DeviceSnapshot& snapshot, const MatrixShape& product);

std::uint64_t matrix_shared_bytes(const AttendConfig& config, const AttendShape& shape);
bool matrix_config_consistent(const AttendConfig& config, const AttendShape& shape);

struct MatrixStyle {
  MatrixShape product;
  std::uint32_t subgroup_size = 32;
  std::uint32_t shared_bytes = 32768;
  std::uint32_t parallel_workgroups = 1;
};
// Nothing where shared memory cannot hold the smallest tiles.
std::optional<AttendConfig> make_matrix_config(const AttendShape& shape, const MatrixStyle& style);

// On any device: every product that drivers list, with the subgroup sizes of those drivers.
std::vector<AttendConfig> all_matrix_configs(const AttendShape& shape);

}  // namespace kvant
