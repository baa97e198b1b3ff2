// The product itself, compiled once for each instruction set by matmul_<set>.cpp. Include after fixing the Eigen
// namespace.
//
// Up to kMostUniformRows rows every element is one dot product in an order that no other row touches: eight running
// sums, joined in a fixed tree. So a token's activations have the same bits whether it is computed alone or beside
// drafted tokens, which a library's product, whose order follows the shape, does not give. Prompts are taller and
// go through Eigen.
#pragma once

#include <Eigen/Core>

#include <cstddef>
#include <cstring>

#include "matmul.hpp"

namespace kvant::engine {

template <typename Tag>
struct MatmulKernel {
  static constexpr size_t kLanes = 8;
  using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

  static void load(const float* from, size_t count, Lanes& to) { std::memcpy(&to, from, count * sizeof(float)); }

  static float join(const Lanes& s) { return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])); }

  // Rows x Columns dot products at once share their loads. What is left of the features goes through lanes padded with
  // zeros, the same in tiles of every size. Unrolled, so that the sums live in registers.
  template <size_t Rows, size_t Columns>
  static void tile(const float* input, const float* weight, float* out, size_t in_features, size_t out_features) {
    Lanes sums[Rows][Columns] = {};
    const size_t whole = in_features - in_features % kLanes;
    for (size_t i = 0; i < whole; i += kLanes) {
      Lanes w[Columns];
#pragma GCC unroll 8
      for (size_t c = 0; c < Columns; ++c) {
        load(weight + c * in_features + i, kLanes, w[c]);
      }
#pragma GCC unroll 8
      for (size_t r = 0; r < Rows; ++r) {
        Lanes x;
        load(input + r * in_features + i, kLanes, x);
#pragma GCC unroll 8
        for (size_t c = 0; c < Columns; ++c) {
          sums[r][c] += x * w[c];
        }
      }
    }
    const size_t rest = in_features - whole;
#pragma GCC unroll 8
    for (size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
      for (size_t c = 0; c < Columns; ++c) {
        if (rest != 0) {
          Lanes x = {}, w = {};
          load(input + r * in_features + whole, rest, x);
          load(weight + c * in_features + whole, rest, w);
          sums[r][c] += x * w;
        }
        out[r * out_features + c] = join(sums[r][c]);
      }
    }
  }

  template <size_t Rows, size_t Columns>
  static void band(const float* input, const float* weight, float* out, size_t in_features, size_t out_features,
                   size_t columns) {
    size_t column = 0;
    for (; column + Columns <= columns; column += Columns) {
      tile<Rows, Columns>(input, weight + column * in_features, out + column, in_features, out_features);
    }
    for (; column < columns; ++column) {
      tile<Rows, 1>(input, weight + column * in_features, out + column, in_features, out_features);
    }
  }

  static void few_rows(const float* input, const float* weight, float* out, size_t rows, size_t in_features,
                       size_t out_features) {
    // A few rows of weights stay in the innermost cache while all rows of activations pass over them.
    constexpr size_t kBand = 8;
    for (size_t column = 0; column < out_features; column += kBand) {
      const size_t columns = out_features - column < kBand ? out_features - column : kBand;
      const float* w = weight + column * in_features;
      size_t row = 0;
      for (; row + 3 <= rows; row += 3) {
        band<3, 4>(input + row * in_features, w, out + row * out_features + column, in_features, out_features, columns);
      }
      for (; row + 2 <= rows; row += 2) {
        band<2, 4>(input + row * in_features, w, out + row * out_features + column, in_features, out_features, columns);
      }
      for (; row < rows; ++row) {
        band<1, 8>(input + row * in_features, w, out + row * out_features + column, in_features, out_features, columns);
      }
    }
  }
};

template <typename Tag>
void matmul_kernel(const float* input, const float* weight, float* out, size_t rows, size_t in_features,
                   size_t out_features) {
  if (rows <= kMostUniformRows) {
    MatmulKernel<Tag>::few_rows(input, weight, out, rows, in_features, out_features);
    return;
  }
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto index = [](size_t size) { return static_cast<Eigen::Index>(size); };
  const Eigen::Map<const Matrix> w(weight, index(out_features), index(in_features));
  const Eigen::Map<const Matrix> x(input, index(rows), index(in_features));
  Eigen::Map<Matrix>(out, index(rows), index(out_features)).noalias() = x * w.transpose();
}

}  // namespace kvant::engine
