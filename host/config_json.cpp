// A configuration from and to JSON.
#include "config_reader.hpp"
#include "config_units.hpp"
#include "json_writer.hpp"

namespace kvant {
namespace {

// The value in the field's own type, if it is one that the type can be written as.
std::optional<ConfigValue> typed_value(const ConfigField& field, const JsonValue& value) {
  using Kind = JsonValue::Kind;
  const auto number = [&](std::optional<std::uint64_t> (*from_text)(std::string_view)) -> std::optional<ConfigValue> {
    if (value.kind == Kind::whole) return value.number;
    if (value.kind != Kind::string || from_text == nullptr) return std::nullopt;
    const std::optional<std::uint64_t> parsed = from_text(value.text);
    return parsed ? std::optional<ConfigValue>(*parsed) : std::nullopt;
  };
  switch (field.type) {
    case FieldType::boolean:
      return value.kind == Kind::boolean ? std::optional<ConfigValue>(value.flag) : std::nullopt;
    case FieldType::count:
      return number(nullptr);
    case FieldType::bytes:
      return number(bytes_from_text);
    case FieldType::duration:
      return number(duration_from_text);
    default:
      return value.kind == Kind::string ? std::optional<ConfigValue>(value.text) : std::nullopt;
  }
}

Status apply(const ConfigEntry& entry, CacheConfig& config) {
  const std::optional<ConfigValue> value = typed_value(*entry.field, entry.value);
  if (!value || !check_value(*entry.field, *value).ok())
    return refused_value(*entry.field, json_value_text(entry.value));
  if (entry.field->key == "preset") {
    const CacheConfig base = config;
    KVANT_ASSIGN(config, config_preset(std::get<std::string>(*value)));
    if (base.capacity_tokens != 0) config.capacity_tokens = base.capacity_tokens;
    config.model_id = base.model_id;
  } else {
    entry.field->set(config, *value);
  }
  return {};
}

}  // namespace

Result<CacheConfig> config_from_json(std::string_view text, const CacheConfig& base) {
  KVANT_ASSIGN(const std::vector<ConfigEntry> entries, read_config_json(text));
  CacheConfig config = base;
  for (const bool preset : {true, false})
    for (const ConfigEntry& entry : entries)
      if ((entry.field->key == "preset") == preset) KVANT_TRY(apply(entry, config));
  KVANT_TRY(validate_config(config));
  return config;
}

std::string config_to_json(const CacheConfig& config) {
  std::string text;
  JsonWriter json(text, 2);
  json.begin_object();
  std::string_view section;  // that is open
  for (const ConfigField& field : config_fields()) {
    const std::size_t dot = field.key.find('.');
    const bool top = dot == std::string_view::npos;
    const std::string_view of_field = top ? std::string_view() : field.key.substr(0, dot);
    if (of_field != section) {
      if (!section.empty()) json.end_object();
      section = of_field;
      if (!top) {
        json.key(section);
        json.begin_object();
      }
    }
    json.key(top ? field.key : field.key.substr(dot + 1));
    std::visit([&json](const auto& value) { json.value(value); }, field.get(config));
  }
  if (!section.empty()) json.end_object();
  json.end_object();
  return text + "\n";
}

}  // namespace kvant
