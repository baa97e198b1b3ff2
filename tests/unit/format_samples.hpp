// Data that the format and page-kernel tests share: blocks that are hard for an encoder, and random rows of many
// scales.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace kvant::test {

inline float random_normal(std::mt19937& engine) {
  // Sum of twelve uniforms: the same on every standard library, and close enough to normal for encoders.
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += static_cast<double>(engine()) / 4294967296.0;
  return static_cast<float>(sum);
}

// Rows of 64 elements. `finite_only` leaves out NaN, infinity and values that count as such.
inline std::vector<std::vector<float>> adversarial_rows(bool finite_only) {
  std::vector<std::vector<float>> rows;
  const auto fill = [&](auto value) {
    std::vector<float> row(64);
    for (std::uint32_t i = 0; i < 64; ++i) row[i] = static_cast<float>(value(i));
    rows.push_back(row);
  };
  const float tiny = std::numeric_limits<float>::denorm_min();
  fill([](std::uint32_t) { return 0.0f; });
  fill([](std::uint32_t) { return -0.0f; });
  fill([](std::uint32_t i) { return i % 2 == 0 ? 0.0f : -0.0f; });
  fill([](std::uint32_t i) { return i % 2 == 0 ? -0.0f : 3.0f; });            // least value is -0
  fill([](std::uint32_t i) { return i % 3 == 0 ? 0.0f : (i % 3 == 1 ? -0.0f : 1.5f); });
  for (const float value : {1.0f, -1.0f, 0.1f, -7.77f, 65504.0f, -65519.9f, 3e5f, 1e-7f, 1e-30f, -1e-38f, 8e37f}) {
    fill([value](std::uint32_t) { return value; });                           // all equal
    fill([value](std::uint32_t i) { return i == 17 ? value : 0.0f; });        // one peak
    fill([value](std::uint32_t i) { return i % 2 == 0 ? value : -value; });   // two signs of equal magnitude
  }
  fill([](std::uint32_t i) { return i == 9 ? -5.0f : (i == 20 ? 5.0f : 0.3f); });   // the first largest decides
  fill([](std::uint32_t i) { return i == 9 ? 5.0f : (i == 20 ? -5.0f : 0.3f); });
  for (const float unit : {0.5f, 0.0625f, 1.0f / 3.0f}) {                     // ties of every integer grid
    fill([unit](std::uint32_t i) { return (static_cast<float>(i) - 32.0f) * unit; });
    fill([unit](std::uint32_t i) { return (static_cast<float>(i % 32) - 15.5f) * unit; });
    fill([unit](std::uint32_t i) { return static_cast<float>(i % 32) * unit; });
  }
  fill([](std::uint32_t i) { return i == 0 ? 127.0f : static_cast<float>(i) + 0.5f; });  // q8_0: halves exactly
  fill([](std::uint32_t i) { return i == 0 ? -127.0f : -static_cast<float>(i) - 0.5f; });
  fill([](std::uint32_t i) { return std::nextafterf(i == 0 ? 127.0f : static_cast<float>(i) + 0.5f, 0.0f); });
  // Huge but finite; a scale above f16.
  fill([](std::uint32_t i) { return 4e37f * (i % 2 == 0 ? 1.0f : -1.0f) / static_cast<float>(i + 1); });
  fill([](std::uint32_t i) { return 1e5f * static_cast<float>(i) - 3.2e6f; });
  // Denormals.
  fill([tiny](std::uint32_t i) { return tiny * static_cast<float>(i); });
  fill([tiny](std::uint32_t i) { return i % 2 == 0 ? tiny * 1000.0f : 1.0f; });
  fill([](std::uint32_t i) { return 1e-38f * static_cast<float>(i % 5) - 2e-38f; });
  // Around the floor.
  fill([](std::uint32_t i) { return std::ldexp(1.0f + static_cast<float>(i) / 64.0f, -100); });
  fill([](std::uint32_t i) { return std::ldexp(1.0f, -static_cast<int>(i) * 2); });
  fill([](std::uint32_t i) { return std::ldexp(i % 2 == 0 ? 1.0f : -1.0f, static_cast<int>(i / 4) - 20); });
  if (!finite_only) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float value : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(),
                              std::numeric_limits<float>::max(), -std::ldexp(1.0f, 126)}) {
      fill([value](std::uint32_t i) { return i == 40 ? value : 0.25f * static_cast<float>(i); });
      fill([value](std::uint32_t i) { return i == 3 ? value : -1.0f; });
    }
  }
  return rows;
}

inline std::vector<float> random_row(std::mt19937& engine, std::uint32_t size, float scale) {
  std::vector<float> row(size);
  for (float& value : row) value = random_normal(engine) * scale;
  return row;
}

}  // namespace kvant::test
