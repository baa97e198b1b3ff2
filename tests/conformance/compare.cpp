#include "compare.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>

namespace kvant::conformance {

namespace {

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", x);
  return text;
}

double ulp_of(double reference) {
  const double magnitude = std::max(std::fabs(reference), static_cast<double>(std::numeric_limits<float>::min()));
  return std::ldexp(1.0, std::ilogb(magnitude) - 23);
}

enum class FloatClass { finite, nan, plus_infinity, minus_infinity };

FloatClass class_of(double x) {
  if (std::isnan(x)) return FloatClass::nan;
  if (std::isinf(x)) return x > 0 ? FloatClass::plus_infinity : FloatClass::minus_infinity;
  return FloatClass::finite;
}

// The first failure gives the message.
void fail(Comparison& c, std::size_t at, const std::string& message, double fraction = kBeyondMeasure) {
  if (c.equal) {
    c.worst = at;
    c.message = message;
  }
  c.equal = false;
  ++c.wrong;
  c.fraction = std::max(c.fraction, fraction);
}

bool sizes_differ(Comparison& c, std::size_t actual, std::size_t reference) {
  c.elements = reference;
  if (actual == reference) return false;
  fail(c, 0, std::to_string(actual) + " elements, expected " + std::to_string(reference));
  return true;
}

}  // namespace

Comparison compare_bytes(std::span<const std::byte> actual, std::span<const std::byte> reference) {
  Comparison c;
  if (sizes_differ(c, actual.size(), reference.size())) return c;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    c.reference_is_zero &= reference[i] == std::byte{0};
    if (actual[i] != reference[i])
      fail(c, i, "byte " + std::to_string(i) + " is " + std::to_string(std::to_integer<int>(actual[i])) + ", expected " +
                     std::to_string(std::to_integer<int>(reference[i])));
  }
  return c;
}

Comparison compare_floats(std::span<const float> actual, std::span<const float> reference) {
  Comparison c;
  if (sizes_differ(c, actual.size(), reference.size())) return c;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    c.reference_is_zero &= reference[i] == 0.0f;
    if (std::bit_cast<std::uint32_t>(actual[i]) == std::bit_cast<std::uint32_t>(reference[i])) continue;
    if (std::isnan(actual[i]) && std::isnan(reference[i]) && std::signbit(actual[i]) == std::signbit(reference[i])) continue;
    const double error = std::fabs(static_cast<double>(actual[i]) - static_cast<double>(reference[i]));
    if (error > c.max_abs) c.max_abs = error;
    fail(c, i, "element " + std::to_string(i) + " is " + number(static_cast<double>(actual[i])) + ", expected exactly " +
                   number(static_cast<double>(reference[i])));
  }
  return c;
}

Comparison compare_ulp(std::span<const float> actual, std::span<const double> reference, double ulp) {
  Comparison c;
  if (sizes_differ(c, actual.size(), reference.size())) return c;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = static_cast<double>(actual[i]), r = reference[i];
    c.reference_is_zero &= r == 0.0;
    if (class_of(a) != class_of(r)) {
      fail(c, i, "element " + std::to_string(i) + " is " + number(a) + ", expected " + number(r));
      continue;
    }
    if (class_of(r) != FloatClass::finite) continue;
    const double error = std::fabs(a - r), ulps = error / ulp_of(r);
    c.max_abs = std::max(c.max_abs, error);
    if (ulps > c.max_ulp) {
      c.max_ulp = ulps;
      c.worst = c.equal ? i : c.worst;
    }
    if (ulp > 0.0) c.fraction = std::max(c.fraction, ulps / ulp);
    if (ulps > ulp)
      fail(c, i, "element " + std::to_string(i) + " is " + number(a) + ", expected " + number(r) + " within " + number(ulp) + " ulp",
           ulp > 0.0 ? ulps / ulp : kBeyondMeasure);
  }
  return c;
}

Comparison compare_bounded(std::span<const double> actual, std::span<const double> reference, std::span<const double> bound,
                           std::span<const double> magnitude, std::size_t row, std::span<const double> shares) {
  Comparison c;
  if (sizes_differ(c, actual.size(), reference.size()) || row == 0) return c;
  for (std::size_t first = 0; first < actual.size(); first += row) {
    double squares = 0.0, allowed = 0.0, scale = 0.0;
    for (std::size_t i = first; i < first + row; ++i) {
      const double a = actual[i], r = reference[i];
      c.reference_is_zero &= r == 0.0;
      if (class_of(a) != class_of(r)) {
        fail(c, i, "element " + std::to_string(i) + " is " + number(a) + ", expected " + number(r));
        continue;
      }
      if (class_of(r) != FloatClass::finite) continue;
      const double error = std::fabs(a - r);
      squares += error * error;
      allowed += bound[i] * bound[i];
      scale += magnitude[i] * magnitude[i];
      c.max_abs = std::max(c.max_abs, error);
      c.max_ulp = std::max(c.max_ulp, error / ulp_of(r));
      const double fraction = bound[i] > 0.0 ? error / bound[i] : (error > 0.0 ? kBeyondMeasure : 0.0);
      if (fraction > 1.0)
        fail(c, i, "element " + std::to_string(i) + " is " + number(a) + ", expected " + number(r) + " within " + number(bound[i]), fraction);
      if (fraction > c.fraction) {
        c.fraction = fraction;
        if (c.equal) c.worst = i;
      }
    }
    if (scale > 0.0) c.nmse = std::max(c.nmse, squares / scale);
    // A single element has no mean to speak of.
    const double share = shares.empty() ? 0.5 : shares[first / row];
    allowed *= share * share;
    if (row > 1 && squares > allowed) {
      const bool told = !c.equal;  // its elements have been counted
      fail(c, first, "row from element " + std::to_string(first) + ": root mean square error " +
                         number(std::sqrt(squares / static_cast<double>(row))) + ", at most " +
                         number(std::sqrt(allowed / static_cast<double>(row))),
           allowed > 0.0 ? std::sqrt(squares / allowed) : kBeyondMeasure);
      if (told) --c.wrong;
    }
  }
  return c;
}

void join(Comparison& into, const Comparison& other, const std::string& what) {
  if (into.equal && !other.equal) {
    into.message = what + ": " + other.message;
    into.worst = other.worst;
  } else if (into.equal && other.fraction >= into.fraction) {
    into.worst = other.worst;
  }
  into.equal = into.equal && other.equal;
  into.max_abs = std::max(into.max_abs, other.max_abs);
  into.max_ulp = std::max(into.max_ulp, other.max_ulp);
  into.nmse = std::max(into.nmse, other.nmse);
  into.fraction = std::max(into.fraction, other.fraction);
  into.wrong += other.wrong;
  into.elements += other.elements;
  into.reference_is_zero = into.reference_is_zero && other.reference_is_zero;
}

}  // namespace kvant::conformance
