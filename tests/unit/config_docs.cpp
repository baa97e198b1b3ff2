// docs/configuration.md has the tables that the code would write, its examples are read, and its errors are the code's.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "config_fields.hpp"
#include "config_units.hpp"

namespace kvant {
namespace {

const std::string kDocs = KVANT_SOURCE_DIR "/docs/";

std::string file_text(const std::string& path) {
  std::ifstream file(path);
  std::stringstream stream;
  stream << file.rdbuf();
  REQUIRE(file.good());
  return stream.str();
}

// The text between <!-- name --> and <!-- end of name -->.
std::string section(const std::string& page, const std::string& name) {
  const std::string begin = "<!-- " + name + " -->\n", end = "<!-- end of " + name + " -->";
  const std::size_t first = page.find(begin), last = page.find(end);
  REQUIRE(first != std::string::npos);
  REQUIRE(last != std::string::npos);
  return page.substr(first + begin.size(), last - first - begin.size());
}

// In the largest unit of which it is a multiple; reads back as the same number.
std::string in_units(std::uint64_t number, std::initializer_list<std::pair<const char*, std::uint64_t>> units) {
  for (const auto& [name, size] : units)
    if (number != 0 && number % size == 0) return std::to_string(number / size) + name;
  return std::to_string(number);
}
std::string number_text(const ConfigField& field, std::uint64_t number) {
  std::string text = std::to_string(number);
  if (field.type == FieldType::bytes) {
    text = in_units(number, {{"TiB", 1ull << 40}, {"GiB", 1ull << 30}, {"MiB", 1ull << 20}, {"KiB", 1ull << 10}});
    REQUIRE((number == 0 || bytes_from_text(text) == number));
  } else if (field.type == FieldType::duration) {
    text = in_units(number, {{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1000}, {"ms", 1}});
    REQUIRE((number == 0 || duration_from_text(text) == number));
  }
  return text;
}

std::string cell(const ConfigField& field, const ConfigValue& value) {
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return number_text(field, *number);
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  const std::string& text = std::get<std::string>(value);
  return text.empty() ? "empty" : '`' + text + '`';
}

std::string type_cell(const ConfigField& field) {
  std::string text(field_type_name(field.type));
  if (field.type == FieldType::count || field.type == FieldType::bytes || field.type == FieldType::duration) {
    const std::string least = number_text(field, field.least), most = number_text(field, field.most);
    return text + ", " + (field.zero ? "0 or " : "") + least + (field.step > 1 ? " or " : " to ") + most;
  }
  if (field.type != FieldType::name) return text;
  for (const std::string_view name : field.names())
    if (!name.empty()) text += (text == field_type_name(field.type) ? ": `" : ", `") + std::string(name) + '`';
  return text;
}

std::string keys_table() {
  const CacheConfig defaults;
  std::string table = "| key | type | default | meaning |\n|---|---|---|---|\n";
  for (const ConfigField& field : config_fields())
    table += "| `" + std::string(field.key) + "` | " + type_cell(field) + " | " + cell(field, field.get(defaults)) +
             " | " + std::string(field.help) + " |\n";
  return table;
}

std::string presets_table() {
  std::string table = "| key |", line = "|---|";
  std::vector<CacheConfig> presets;
  for (const std::string_view name : config_preset_names()) {
    presets.push_back(config_preset(name).value());
    table += " `" + std::string(name) + "` |";
    line += "---|";
  }
  table += " default |\n" + line + "---|\n";
  const CacheConfig defaults;
  for (const ConfigField& field : config_fields()) {
    std::string row = "| `" + std::string(field.key) + "` |";
    bool differs = false;
    for (const CacheConfig& preset : presets) {
      row += ' ' + cell(field, field.get(preset)) + " |";
      differs = differs || field.get(preset) != field.get(defaults);
    }
    if (differs && field.key != "preset") table += row + ' ' + cell(field, field.get(defaults)) + " |\n";
  }
  return table;
}

TEST_CASE("configuration.md: its tables are the code's") {
  const std::string page = file_text(kDocs + "configuration.md");
  CHECK(section(page, "presets") == presets_table());
  CHECK(section(page, "keys") == keys_table());
  for (const ConfigField& field : config_fields()) {
    CAPTURE(field.key);
    CHECK(field.help.ends_with('.'));
    CHECK(field.help.find('|') == std::string_view::npos);
  }
}

TEST_CASE("configuration.md: its examples are read") {
  const std::string page = file_text(kDocs + "configuration.md");
  std::size_t examples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kDocs + "configuration")) {
    const std::string name = entry.path().filename().string();
    CAPTURE(name);
    const Result<CacheConfig> config = config_from_json(file_text(entry.path().string()));
    INFO(config.status().message());
    CHECK(config.ok());
    CHECK(page.find("(configuration/" + name + ")") != std::string::npos);
    ++examples;
  }
  CHECK(examples == 4);

  const CacheConfig hybrid = config_from_json(file_text(kDocs + "configuration/hybrid.json")).value();
  CHECK(hybrid.policy == PolicyConfig{PolicyKind::adaptive, 7'200'000, 0});
  CHECK(hybrid.hybrid == HybridConfig{"f16", "q8_0/q4_0", 3});
  const CacheConfig replica = config_from_json(file_text(kDocs + "configuration/replica.json")).value();
  CHECK(replica.tiers.remote_servers == "cache-1.local:11211,cache-2.local:11211");
  CHECK(replica.tiers.remote_timeout_ms == 50);
  CHECK(replica.tiers.host_bytes == 0);
}

TEST_CASE("configuration.md: its sentences are what the code says") {
  const std::string page = file_text(kDocs + "configuration.md");
  for (const std::string_view text :
       {R"({"tiers": {"disk_byte": 5}})", R"({"page_tokens": 24})", R"({"policy": {"ttl_ms": -3}})",
        R"({"tiers": {"disk_bytes": "1GB"}})", R"({"tiers": {"host_bytes": 1}, "tiers.host_bytes": 1})"}) {
    const Result<CacheConfig> config = config_from_json(text);
    REQUIRE_FALSE(config.ok());
    CAPTURE(config.status().message());
    CHECK(page.find("    " + config.status().message() + "\n") != std::string::npos);
  }
}

}  // namespace
}  // namespace kvant
