// Random values of configuration keys and random valid configurations, drawn by the table of keys alone.
#pragma once

#include <string>
#include <vector>

#include "config_fields.hpp"
#include "host_random.hpp"

namespace kvant::test {

inline std::uint64_t random_number(const ConfigField& field, Random& random) {
  if (field.zero && random.chance(20)) return 0;
  if (random.chance(20)) return field.least;
  if (random.chance(20)) return field.most;
  const std::uint64_t wide = (std::uint64_t{random.below(0xFFFFFFFFu)} << 32) | random.below(0xFFFFFFFFu);
  const std::uint64_t steps = (field.most - field.least) / field.step + 1;
  return field.least + wide % steps * field.step;
}

inline std::string random_format(Random& random) {
  return std::string(formats()[random.below(static_cast<std::uint32_t>(formats().size()))].name);
}

inline std::string random_text(Random& random) {
  static constexpr std::string_view kPieces[] = {"a", "Z", "7", "/", " ",  "\"",   "\\", "{",
                                                 "}", ":", ",", "ä", "日", "🙂", "."};
  std::string text;
  for (std::uint32_t i = random.below(12); i > 0; --i) text += kPieces[random.below(std::size(kPieces))];
  return text;
}

inline std::string random_servers(Random& random) {
  std::string servers;
  for (std::uint32_t i = random.below(4); i > 0; --i) {
    if (!servers.empty()) servers += ',';
    servers += "node-" + std::to_string(random.below(100)) + ".local";
    if (random.chance(50)) servers += ':' + std::to_string(random.between(1, 65535));
  }
  return servers;
}

inline ConfigValue random_value(const ConfigField& field, Random& random) {
  switch (field.type) {
    case FieldType::boolean:
      return random.chance(50);
    case FieldType::name: {
      const std::vector<std::string_view> names = field.names();
      return std::string(names[random.below(static_cast<std::uint32_t>(names.size()))]);
    }
    case FieldType::format:
      return random.chance(30) ? std::string() : random_format(random);
    case FieldType::format_pair:
      if (random.chance(30)) return std::string();
      return random.chance(50) ? random_format(random) : random_format(random) + '/' + random_format(random);
    case FieldType::servers:
      return random_servers(random);
    case FieldType::text:
      return random_text(random);
    default:
      return random_number(field, random);
  }
}

// From a preset or the defaults, by changes of a few keys at a time that leave it valid.
inline CacheConfig random_config(Random& random) {
  const std::span<const std::string_view> names = config_preset_names();
  const std::uint32_t preset = random.below(static_cast<std::uint32_t>(names.size()) + 1);
  CacheConfig config = config_preset(preset == names.size() ? std::string_view() : names[preset]).value();
  for (std::uint32_t i = random.below(20); i > 0; --i) {
    CacheConfig changed = config;
    for (std::uint32_t j = random.between(1, 4); j > 0; --j) {
      const ConfigField& field = config_fields()[random.below(static_cast<std::uint32_t>(config_fields().size()))];
      field.set(changed, random_value(field, random));
    }
    if (validate_config(changed).ok()) config = changed;
  }
  return config;
}

// {"tiers": {"disk_bytes": <json>}}, or {"tiers.disk_bytes": <json>}.
inline std::string nested_json(std::string_view key, std::string_view json) {
  const std::size_t dot = key.find('.');
  const std::string value(json);
  if (dot == std::string_view::npos) return "{\"" + std::string(key) + "\": " + value + "}";
  return "{\"" + std::string(key.substr(0, dot)) + "\": {\"" + std::string(key.substr(dot + 1)) + "\": " + value + "}}";
}
inline std::string flat_json(std::string_view key, std::string_view json) {
  return "{\"" + std::string(key) + "\": " + std::string(json) + "}";
}

}  // namespace kvant::test
