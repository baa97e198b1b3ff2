// Words of messages.
#pragma once

#include <string>
#include <string_view>

namespace kvant {

// Text from outside as a message quotes it: whole if it is short, else its beginning and its length.
inline std::string quoted_text(std::string_view text) {
  constexpr std::size_t kMost = 80;
  if (text.size() <= kMost) return std::string(text);
  return std::string(text.substr(0, kMost)) + "... of " + std::to_string(text.size()) + " bytes";
}

}  // namespace kvant
