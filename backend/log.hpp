// Log: a callback and a level, handed down at creation. A default Log is silent.
#pragma once

#include <cstdint>
#include <string_view>

namespace kvant {

enum class LogLevel : std::uint32_t { debug = 0, info = 1, warning = 2, error = 3, host_misbehaving = 4, plugin_misbehaving = 5 };

// Thread-safe if the callback is. Messages have no newline.
struct Log {
  void (*callback)(void* user_data, std::uint32_t level, const char* message, std::size_t message_size) = nullptr;
  void* user_data = nullptr;
  LogLevel level = LogLevel::warning;

  void write(LogLevel message_level, std::string_view message) const {
    if (callback != nullptr && message_level >= level)
      callback(user_data, static_cast<std::uint32_t>(message_level), message.data(), message.size());
  }
};

}  // namespace kvant
