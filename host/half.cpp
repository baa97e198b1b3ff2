// Conversions between f32 and f16, bf16 and f8_e4m3 in integer arithmetic: round to nearest, ties to even, the same
// bits on every host. shaders/include/numeric.glsl has the same code in GLSL.
#include <bit>

#include "formats.hpp"

namespace kvant {
namespace {

constexpr std::uint32_t kAbsMask = 0x7FFFFFFFu;
constexpr std::uint32_t kInfinity = 0x7F800000u;

// value >> shift, rounded to nearest, ties to even; 1 <= shift <= 31.
constexpr std::uint32_t shift_rounded(std::uint32_t value, std::uint32_t shift) {
  const std::uint32_t kept = value >> shift;
  const std::uint32_t rest = value & ((1u << shift) - 1u);
  const std::uint32_t half = 1u << (shift - 1u);
  return kept + ((rest > half || (rest == half && (kept & 1u) != 0u)) ? 1u : 0u);
}

}  // namespace

std::uint16_t f32_to_f16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & kAbsMask;
  if (magnitude > kInfinity) return static_cast<std::uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u) return static_cast<std::uint16_t>(sign | 0x7C00u);  // 65520 and above
  if (magnitude >= 0x38800000u) {                                                   // 2^-14: normal in f16
    return static_cast<std::uint16_t>(sign | shift_rounded(magnitude - 0x38000000u, 13));
  }
  if (magnitude < 0x33000000u) return static_cast<std::uint16_t>(sign);  // below 2^-25
  const std::uint32_t mantissa = (magnitude & 0x007FFFFFu) | 0x00800000u;
  const std::uint32_t shift = 126u - (magnitude >> 23);  // 14 .. 24: units of 2^-24
  return static_cast<std::uint16_t>(sign | shift_rounded(mantissa, shift));
}

float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t magnitude = h & 0x7FFFu;
  if (magnitude >= 0x7C00u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x70000000u));
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
  const float value = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

std::uint16_t f32_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & kAbsMask) > kInfinity) return static_cast<std::uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

float bf16_to_f32(std::uint16_t h) { return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16); }

std::uint8_t f32_to_f8_e4m3(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 24) & 0x80u;
  const std::uint32_t magnitude = bits & kAbsMask;
  if (magnitude > kInfinity) return 0x7Fu;
  if (magnitude >= 0x43E00000u) return static_cast<std::uint8_t>(sign | 0x7Eu);  // 448 and above
  if (magnitude >= 0x3C800000u) {                                                // 2^-6: normal
    return static_cast<std::uint8_t>(sign | shift_rounded(magnitude - 0x3C000000u, 20));
  }
  if (magnitude < 0x3A800000u) return static_cast<std::uint8_t>(sign);  // below 2^-10
  const std::uint32_t mantissa = (magnitude & 0x007FFFFFu) | 0x00800000u;
  const std::uint32_t shift = 141u - (magnitude >> 23);  // 21 .. 24: units of 2^-9
  return static_cast<std::uint8_t>(sign | shift_rounded(mantissa, shift));
}

float f8_e4m3_to_f32(std::uint8_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x80u) << 24;
  const std::uint32_t magnitude = h & 0x7Fu;
  if (magnitude == 0x7Fu) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (magnitude >= 0x08u) return std::bit_cast<float>(sign | ((magnitude << 20) + 0x3C000000u));
  const float value = static_cast<float>(magnitude) * 0x1p-9f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

}  // namespace kvant
