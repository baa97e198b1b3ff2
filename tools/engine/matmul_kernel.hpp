// The product itself, compiled once for each instruction set by matmul_<set>.cpp. Include after fixing the Eigen
// namespace.
#pragma once

#include <Eigen/Core>

#include <cstddef>

namespace kvant::engine {

template <typename Tag>
void matmul_kernel(const float* input, const float* weight, float* out, size_t rows, size_t in_features,
                   size_t out_features) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Vector = Eigen::Matrix<float, Eigen::Dynamic, 1>;
  const auto index = [](size_t size) { return static_cast<Eigen::Index>(size); };
  const Eigen::Map<const Matrix> w(weight, index(out_features), index(in_features));
  if (rows == 1) {
    const Eigen::Map<const Vector> x(input, index(in_features));
    Eigen::Map<Vector>(out, index(out_features)).noalias() = w * x;
    return;
  }
  const Eigen::Map<const Matrix> x(input, index(rows), index(in_features));
  Eigen::Map<Matrix>(out, index(rows), index(out_features)).noalias() = x * w.transpose();
}

}  // namespace kvant::engine
