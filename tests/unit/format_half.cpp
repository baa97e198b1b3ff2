// f16, bf16 and f8 conversions against an independent derivation in double: every 16-bit and 8-bit value, and around
// every midpoint between neighbours.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "formats.hpp"

using namespace kvant;

namespace {

// The value of a small float with `exponent_bits` and `mantissa_bits`, from the definition.
double small_float_value(std::uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto exponent = static_cast<int>(bits >> mantissa_bits);
  const auto mantissa = static_cast<double>(bits & ((1u << mantissa_bits) - 1u)) / (1 << mantissa_bits);
  return exponent == 0 ? std::ldexp(mantissa, 1 - bias) : std::ldexp(1.0 + mantissa, exponent - bias);
}

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

// Checks round-to-nearest-even between neighbours `low` and `low` + 1 of a format, for both signs.
template <typename Encode>
void check_between(std::uint32_t low, double low_value, double high_value, std::uint32_t sign_bit, Encode encode) {
  const auto middle = static_cast<float>((low_value + high_value) / 2);
  REQUIRE(static_cast<double>(middle) == (low_value + high_value) / 2);
  const float below = std::nextafterf(middle, 0.0f);
  const float above = std::nextafterf(middle, std::numeric_limits<float>::infinity());
  const std::uint32_t even = (low & 1u) == 0u ? low : low + 1u;
  const bool right = encode(middle) == even && encode(below) == low && encode(above) == low + 1u &&
                     encode(-middle) == (even | sign_bit) && encode(-below) == (low | sign_bit) &&
                     encode(-above) == ((low + 1u) | sign_bit);
  CHECK_MESSAGE(right, "around code " << low);
}

}  // namespace

TEST_CASE("f16: every value decodes as defined and encodes back") {
  for (std::uint32_t h = 0; h < 0x7C00u; ++h) {
    const double value = small_float_value(h, 5, 10);
    REQUIRE(static_cast<double>(f16_to_f32(static_cast<std::uint16_t>(h))) == value);
    REQUIRE(static_cast<double>(f16_to_f32(static_cast<std::uint16_t>(h | 0x8000u))) == -value);
    REQUIRE(f32_to_f16(static_cast<float>(value)) == h);
    REQUIRE(f32_to_f16(static_cast<float>(-value)) == (h | 0x8000u));
  }
  CHECK(bits_of(f16_to_f32(0x8000)) == 0x80000000u);
  CHECK(std::isinf(f16_to_f32(0x7C00)));
  CHECK(f16_to_f32(0xFC00) == -std::numeric_limits<float>::infinity());
  for (std::uint32_t h = 0x7C01u; h < 0x8000u; ++h) {
    REQUIRE(std::isnan(f16_to_f32(static_cast<std::uint16_t>(h))));
    REQUIRE((f32_to_f16(f16_to_f32(static_cast<std::uint16_t>(h))) & 0x7C00u) == 0x7C00u);
  }
}

TEST_CASE("f16: rounds to nearest, ties to even, between all neighbours") {
  for (std::uint32_t h = 0; h < 0x7BFFu; ++h) {
    check_between(h, small_float_value(h, 5, 10), small_float_value(h + 1, 5, 10), 0x8000u, f32_to_f16);
  }
  CHECK(f32_to_f16(65504.0f) == 0x7BFFu);
  CHECK(f32_to_f16(std::nextafterf(65520.0f, 0.0f)) == 0x7BFFu);
  CHECK(f32_to_f16(65520.0f) == 0x7C00u);
  CHECK(f32_to_f16(-std::numeric_limits<float>::infinity()) == 0xFC00u);
  CHECK(f32_to_f16(std::numeric_limits<float>::denorm_min()) == 0u);
  CHECK((f32_to_f16(std::numeric_limits<float>::quiet_NaN()) & 0x7E00u) == 0x7E00u);
}

TEST_CASE("bf16: every value decodes as defined, encodes back, and rounds to nearest even") {
  for (std::uint32_t h = 0; h < 0x7F80u; ++h) {
    const double value = small_float_value(h, 8, 7);
    REQUIRE(static_cast<double>(bf16_to_f32(static_cast<std::uint16_t>(h))) == value);
    REQUIRE(f32_to_bf16(static_cast<float>(value)) == h);
    if (h < 0x7F7Fu) check_between(h, value, small_float_value(h + 1, 8, 7), 0x8000u, f32_to_bf16);
  }
  CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7F80u);
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7F800001u)))));
}

TEST_CASE("f8_e4m3: every value, rounding, saturation and NaN") {
  for (std::uint32_t h = 0; h < 0x7Fu; ++h) {
    const double value = small_float_value(h, 4, 3);
    REQUIRE(static_cast<double>(f8_e4m3_to_f32(static_cast<std::uint8_t>(h))) == value);
    REQUIRE(f32_to_f8_e4m3(static_cast<float>(value)) == h);
    REQUIRE(f32_to_f8_e4m3(static_cast<float>(-value)) == (h | 0x80u));
    if (h < 0x7Eu) check_between(h, value, small_float_value(h + 1, 4, 3), 0x80u, f32_to_f8_e4m3);
  }
  CHECK(small_float_value(0x7E, 4, 3) == 448.0);
  CHECK(f32_to_f8_e4m3(1e30f) == 0x7Eu);
  CHECK(f32_to_f8_e4m3(-std::numeric_limits<float>::infinity()) == 0xFEu);
  CHECK(f32_to_f8_e4m3(std::numeric_limits<float>::quiet_NaN()) == 0x7Fu);
  CHECK(std::isnan(f8_e4m3_to_f32(0x7F)));
  CHECK(std::isnan(f8_e4m3_to_f32(0xFF)));
}
