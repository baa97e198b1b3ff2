#include "config_units.hpp"

#include <span>

#include "checked.hpp"

namespace kvant {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t size;
};

constexpr Unit kByteUnits[] = {
    {"B", 1},
    {"kB", 1'000},
    {"KB", 1'000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"TB", 1'000'000'000'000},
    {"KiB", 1ull << 10},
    {"MiB", 1ull << 20},
    {"GiB", 1ull << 30},
    {"TiB", 1ull << 40},
};
constexpr Unit kTimeUnits[] = {{"ms", 1}, {"s", 1'000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};

// More would not fit beside the largest unit, and nobody needs them.
constexpr std::size_t kMostDecimals = 3;

std::string_view take_digits(std::string_view& text) {
  std::size_t count = 0;
  while (count < text.size() && text[count] >= '0' && text[count] <= '9') ++count;
  const std::string_view digits = text.substr(0, count);
  text.remove_prefix(count);
  return digits;
}

std::optional<std::uint64_t> number_of(std::string_view digits) {
  std::uint64_t number = 0;
  for (const char digit : digits) {
    const auto tens = checked_multiply(number, 10);
    const auto sum = tens ? checked_add(*tens, static_cast<std::uint64_t>(digit - '0')) : std::nullopt;
    if (!sum) return std::nullopt;
    number = *sum;
  }
  return number;
}

std::optional<std::uint64_t> parse(std::string_view text, std::span<const Unit> units) {
  const std::string_view whole_digits = take_digits(text);
  if (whole_digits.empty()) return std::nullopt;
  std::string_view decimals;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    decimals = take_digits(text);
    if (decimals.empty() || decimals.size() > kMostDecimals) return std::nullopt;
  }
  if (text.starts_with(' ')) text.remove_prefix(1);
  for (const Unit& unit : units) {
    if (unit.name != text) continue;
    const auto number = number_of(whole_digits);
    const auto whole = number ? checked_multiply(*number, unit.size) : std::nullopt;
    if (!whole) return std::nullopt;
    std::uint64_t scale = 1;
    for (std::size_t i = 0; i < decimals.size(); ++i) scale *= 10;
    const std::uint64_t part = number_of(decimals).value_or(0) * unit.size;  // below 1000 * 2^40
    if (part % scale != 0) return std::nullopt;
    return checked_add(*whole, part / scale);
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> bytes_from_text(std::string_view text) { return parse(text, kByteUnits); }
std::optional<std::uint64_t> duration_from_text(std::string_view text) { return parse(text, kTimeUnits); }

}  // namespace kvant
