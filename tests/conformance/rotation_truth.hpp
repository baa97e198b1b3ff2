// What attend_merge makes of a row of V's mean: the row taken back (docs/rotation.md), with the error that the f32 transform may add.
#pragma once

#include <span>

namespace kvant::conformance {

// Rows of `dim` elements in place. `bound`: of the error before the output's own rounding, which is a relative `rounding` and a `step`.
// `magnitude`: what errors are seen against.
void take_back(std::span<double> out, std::span<double> bound, std::span<double> magnitude, std::size_t dim, double rounding, double step);

}  // namespace kvant::conformance
