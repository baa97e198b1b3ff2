// The rotation of a side's rows (docs/rotation.md), in f32 with the operations and the order of shaders/include/rotation.glsl.
#pragma once

#include <cstdint>
#include <span>

namespace kvant {

// Rows of a multiple of 8 elements: y = H * S * x, S random signs that depend on the element's number alone, H orthonormal Walsh-Hadamard blocks
// of powers of two down the diagonal, the greatest first.
void rotate_row(std::span<float> row);
// x = S * H * y: the transpose, which is the inverse but for rounding.
void rotate_row_back(std::span<float> row);

}  // namespace kvant
