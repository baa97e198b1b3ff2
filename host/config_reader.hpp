// The JSON of a configuration as a list of keys and values. Stops at the first key that does not exist or comes twice,
// so that what a hostile text can make it hold is bounded by the table of keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config_fields.hpp"
#include "status.hpp"

namespace kvant {

inline constexpr std::size_t kMostConfigBytes = 1u << 20;
inline constexpr std::uint32_t kMostConfigDepth = 8;

struct JsonValue {
  enum class Kind : std::uint32_t { null, boolean, whole, other_number, string, array, object };
  Kind kind = Kind::null;
  bool flag = false;
  std::uint64_t number = 0;  // whole: 0 or more, and not written as a fraction
  std::string text;          // string: its characters; other_number: as it was written
};
std::string json_value_text(const JsonValue& value);  // as messages show it

struct ConfigEntry {
  const ConfigField* field = nullptr;
  JsonValue value;
};

// Whether a value suits its field is left to the caller. Errors: invalid_argument.
Result<std::vector<ConfigEntry>> read_config_json(std::string_view text);

}  // namespace kvant
