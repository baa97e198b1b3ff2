// Products of cooperative matrices: those that attention takes, of the many that a device may list.
#pragma once

#include "device_snapshot.hpp"

namespace kvant {

// Rows, columns and depth, all of which the kernel takes as constants.
struct MatrixShape {
  std::uint32_t m = 0, n = 0, k = 0;
};

// Products of f16 with sums of f32, in a subgroup.
bool has_matrix_shape(const DeviceSnapshot& snapshot, const MatrixShape& product);
bool has_matrix_shapes(const DeviceSnapshot& snapshot);

// The kernel can take them: each size divides a span of 32 elements.
bool is_kernel_shape(const MatrixShape& product);

}  // namespace kvant
