#include "matrix_shape.hpp"

#include <algorithm>
#include <bit>

namespace kvant {
namespace {

constexpr std::uint32_t kScopeSubgroup = 3, kFloat16 = 0, kFloat32 = 1;  // VkScopeKHR, VkComponentTypeKHR

}  // namespace

bool has_matrix_shape(const DeviceSnapshot& snapshot, const MatrixShape& product) {
  const CoopmatShape wanted{product.m, product.n, product.k, kFloat16, kFloat16, kFloat32, kFloat32, kScopeSubgroup};
  return std::find(snapshot.coopmat_shapes.begin(), snapshot.coopmat_shapes.end(), wanted) != snapshot.coopmat_shapes.end();
}

bool has_matrix_shapes(const DeviceSnapshot& snapshot) {
  return std::any_of(snapshot.coopmat_shapes.begin(), snapshot.coopmat_shapes.end(), [&](const CoopmatShape& shape) {
    const MatrixShape product{shape.m, shape.n, shape.k};
    return is_kernel_shape(product) && has_matrix_shape(snapshot, product);
  });
}

bool is_kernel_shape(const MatrixShape& product) {
  const auto divides = [](std::uint32_t x) { return x >= 4 && x <= 32 && std::has_single_bit(x); };
  return divides(product.m) && divides(product.n) && divides(product.k);
}

}  // namespace kvant
