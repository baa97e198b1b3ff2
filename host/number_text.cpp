// Formatting of the numbers in sentences.
#include "number_text.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <iterator>
#include <string_view>

namespace kvant {
namespace {

std::string fixed(double value, int decimals) {
  char text[400];  // the longest double has 309 digits before the point
  const std::to_chars_result end = std::to_chars(text, std::end(text), value, std::chars_format::fixed, decimals);
  return std::string(text, end.ptr);
}

}  // namespace

std::string count_text(std::uint64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t i = text.size(); i > 3; i -= 3) text.insert(i - 3, 1, ',');
  return text;
}

std::string decimal_text(double value) {
  const double size = std::abs(value);
  if (!(size < 1e15) || (size > 0 && size < 1e-4)) {
    char text[32];
    return std::string(text, std::to_chars(text, std::end(text), value, std::chars_format::general, 2).ptr);
  }
  if (size >= 999.5) return (value < 0 ? "-" : "") + count_text(static_cast<std::uint64_t>(std::llround(size)));
  if (size >= 99.95) return fixed(value, 0);
  if (size >= 9.995) return fixed(value, 1);
  return fixed(value, size >= 0.0995 || size == 0 ? 2 : 4);
}

std::string percent_text(double share) { return fixed(share * 100, std::abs(share) < 0.0995 ? 1 : 0) + " %"; }

std::string bytes_text(std::uint64_t bytes) {
  static constexpr std::array<std::string_view, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return std::to_string(bytes) + " bytes";
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1023.5 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return decimal_text(value) + ' ' + std::string(kUnits[unit]);
}

std::string duration_text(double seconds) {
  if (seconds >= 90 * 60) return decimal_text(seconds / 3600) + " hours";
  if (seconds >= 90) return std::to_string(std::lround(seconds / 60)) + " minutes";
  if (seconds >= 1) return decimal_text(seconds) + " s";
  if (seconds >= 1e-3) return decimal_text(seconds * 1e3) + " ms";
  return decimal_text(seconds * 1e6) + " us";
}

}  // namespace kvant
