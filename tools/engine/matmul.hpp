// The one matrix product of the engine: rows of activations times the transpose of a weight matrix, in f32.
#pragma once

#include <cstddef>

namespace kvant::engine {

// Up to so many rows a row's result has the same bits whatever stands beside it; taller products are Eigen's.
inline constexpr size_t kMostUniformRows = 32;

// out[rows][out_features] = input[rows][in_features] * weight[out_features][in_features]^T, all row-major.
// Chooses code for AVX2 at run time where the processor has it.
void matmul(const float* input, const float* weight, float* out, size_t rows, size_t in_features, size_t out_features);

// Which code matmul uses here: "avx2" or "generic".
const char* matmul_code();

}  // namespace kvant::engine
