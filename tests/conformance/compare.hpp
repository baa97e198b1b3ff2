// Comparison of results with the reference: exact, by units in the last place, or by a bound per element. A row's error is
// looked at alone, so that one wrong row cannot hide in a large tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace kvant::conformance {

// Stands for an error that has no ratio to its limit: a class or a bit that differs.
inline constexpr double kBeyondMeasure = 1e30;

struct Comparison {
  bool equal = true;            // within the limits
  double max_abs = 0.0;         // largest absolute error
  double max_ulp = 0.0;         // largest error in f32 ulp of the reference
  double nmse = 0.0;            // worst row: squared error over squared magnitude
  double fraction = 0.0;        // worst error as a part of its limit
  std::size_t worst = 0;        // element with that error
  std::size_t wrong = 0, elements = 0;  // beyond their limits; compared
  bool reference_is_zero = true;
  std::string message;          // what is wrong, if not equal
};

Comparison compare_bytes(std::span<const std::byte> actual, std::span<const std::byte> reference);
// Elements as bit patterns; a NaN equals a NaN of the same sign.
Comparison compare_floats(std::span<const float> actual, std::span<const float> reference);
Comparison compare_ulp(std::span<const float> actual, std::span<const double> reference, double ulp);

// |actual - reference| <= bound per element; over a row of `row` elements the error's root mean square may be at most this part of
// the bounds': `shares` per row, a half where there are none. `magnitude` per element is what the row's nmse is measured against. Infinities and NaN must agree in class and sign.
Comparison compare_bounded(std::span<const double> actual, std::span<const double> reference, std::span<const double> bound,
                           std::span<const double> magnitude, std::size_t row, std::span<const double> shares = {});

// Joins the figures of `other` into `into`: the worse of each.
void join(Comparison& into, const Comparison& other, const std::string& what);

}  // namespace kvant::conformance
