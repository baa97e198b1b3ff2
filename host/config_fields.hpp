// The table of configuration keys. Reading and writing JSON, validation, the public struct kvant_config and the table of
// docs/configuration.md all follow it: a new key is a member of CacheConfig and of that struct, and a row of
// config_fields.def.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config.hpp"

namespace kvant {

enum class FieldType : std::uint32_t { boolean, count, bytes, duration, name, format, format_pair, servers, text };
std::string_view field_type_name(FieldType type);  // as the docs call it

using ConfigValue = std::variant<bool, std::uint64_t, std::string>;

struct ConfigField {
  std::string_view key;  // "tiers.disk_bytes"; a section and a name, or a name alone
  FieldType type = FieldType::text;
  std::uint64_t least = 0, most = 0;                   // numbers: the range; texts: the length in bytes
  std::uint64_t step = 1;                              // numbers: multiples of it only
  bool zero = false;                                   // numbers: 0 as well, though below `least`
  std::vector<std::string_view> (*names)() = nullptr;  // name: those that exist
  std::string_view help;                               // one sentence
  ConfigValue (*get)(const CacheConfig&) = nullptr;
  void (*set)(CacheConfig&, const ConfigValue&) = nullptr;  // of an allowed value
};

std::span<const ConfigField> config_fields();
const ConfigField* config_field(std::string_view key);  // null: no such key
bool config_section(std::string_view name);             // whether keys begin with "name."
std::string_view nearest_config_key(std::string_view key);

// What the field takes, as in "a whole number from 16 to 1024".
std::string expected_text(const ConfigField& field);
// As JSON shows it, strings in quotes and cut where they are long.
std::string value_text(const ConfigValue& value);
Status check_value(const ConfigField& field, const ConfigValue& value);
// "key (value) is not what was expected"; `shown` is the value as messages show it.
Status refused_value(const ConfigField& field, std::string_view shown);

// Whether it is UTF-8 of no control characters.
bool plain_text(std::string_view text);
// Bytes up to the first one that is no UTF-8; all of them if there is none.
std::size_t utf8_length(std::string_view text);
// '?' for every control character, and for all that is not ASCII in what is no UTF-8.
std::string printable(std::string text);
// Printable, in quotes, cut where it is long.
std::string shown_text(std::string_view text);

}  // namespace kvant
