// Building of error sentences: text(...) joins parts, invalid(...) and friends make a Status of them.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <type_traits>

#include "status.hpp"

namespace kvant::abi {

inline void append_part(std::string& out, std::string_view part) { out += part; }

template <typename T>
  requires std::is_arithmetic_v<T>
void append_part(std::string& out, T value) {
  if constexpr (std::is_floating_point_v<T>) {
    char buffer[40];
    std::snprintf(buffer, sizeof buffer, "%g", static_cast<double>(value));
    out += buffer;
  } else {
    out += std::to_string(value);
  }
}

template <typename... Parts>
std::string text(const Parts&... parts) {
  std::string out;
  (append_part(out, parts), ...);
  return out;
}

// 0x... of a handle, a type or a bit set.
inline std::string hex(std::uint64_t value) {
  char buffer[24];
  std::snprintf(buffer, sizeof buffer, "0x%llx", static_cast<unsigned long long>(value));
  return buffer;
}

// "array[index]", and with a field behind it: names for messages that are seldom wanted, so that checks take no memory.
class ElementName {
 public:
  ElementName(std::string_view array, std::uint64_t index, std::string_view field = {}) {
    add(array);
    add("[");
    char digits[24];
    add({digits, static_cast<std::size_t>(std::to_chars(digits, digits + sizeof digits, index).ptr - digits)});
    add("]");
    add(field);
  }
  operator std::string_view() const { return {text_, size_}; }

 private:
  void add(std::string_view part) { size_ += part.copy(text_ + size_, sizeof text_ - size_); }

  char text_[96];
  std::size_t size_ = 0;
};

template <typename... Parts>
Status invalid(const Parts&... parts) {
  return {StatusCode::invalid_argument, text(parts...)};
}

template <typename... Parts>
Status precondition(const Parts&... parts) {
  return {StatusCode::failed_precondition, text(parts...)};
}

template <typename... Parts>
Status not_found(const Parts&... parts) {
  return {StatusCode::not_found, text(parts...)};
}

}  // namespace kvant::abi
