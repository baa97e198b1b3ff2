// quoted_text: strings from outside as messages quote them.
#pragma once

#include <string>
#include <string_view>

namespace kvant {

// Most bytes of a path that a message quotes: no file system takes more.
inline constexpr std::size_t kMostPathBytes = 4096;

// Whole if it is short, else its beginning, cut between UTF-8 characters, and its length.
inline std::string quoted_text(std::string_view text, std::size_t most = 80) {
  if (text.size() <= most) return std::string(text);
  std::size_t end = most;
  while (end != 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) --end;
  return std::string(text.substr(0, end)) + "... of " + std::to_string(text.size()) + " bytes";
}

}  // namespace kvant
