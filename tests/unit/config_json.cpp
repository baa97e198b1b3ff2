// Configurations to JSON and back: presets, random ones, presets under other keys, units.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "config_random.hpp"
#include "config_units.hpp"

namespace kvant {
namespace {

CacheConfig read(std::string_view text) {
  const Result<CacheConfig> config = config_from_json(text);
  INFO(text);
  INFO(config.status().message());
  REQUIRE(config.ok());
  return config.value();
}

TEST_CASE("config: presets and the defaults go to JSON and back, and every key is written") {
  std::vector<std::string_view> names(config_preset_names().begin(), config_preset_names().end());
  REQUIRE(names == std::vector<std::string_view>{"llm", "mobile", "research"});
  names.emplace_back();
  for (const std::string_view name : names) {
    CAPTURE(name);
    const CacheConfig config = config_preset(name).value();
    CHECK(config.preset == name);
    CHECK(validate_config(config).ok());
    const std::string text = config_to_json(config);
    CHECK(read(text) == config);
    CHECK(read("{\"preset\": \"" + std::string(name) + "\"}") == config);

    const nlohmann::json json = nlohmann::json::parse(text);
    std::size_t leaves = 0;
    for (const auto& [key, value] : json.items()) leaves += value.is_object() ? value.size() : 1;
    CHECK(leaves == config_fields().size());
  }
  CHECK(config_preset("").value() == CacheConfig());
  CHECK(read("{}") == CacheConfig());
  CHECK(config_preset("server").status().code() == StatusCode::not_found);
}

TEST_CASE("config: random configurations go to JSON and back") {
  test::Random random(20);
  std::set<std::string_view> changed;
  for (int i = 0; i < 3000; ++i) {
    const CacheConfig config = test::random_config(random);
    for (const ConfigField& field : config_fields())
      if (field.get(config) != field.get(CacheConfig())) changed.insert(field.key);
    const std::string text = config_to_json(config);
    INFO(text);
    const Result<CacheConfig> again = config_from_json(text);
    INFO(again.status().message());
    REQUIRE(again.ok());
    REQUIRE(again.value() == config);
  }
  for (const ConfigField& field : config_fields()) {
    CAPTURE(field.key);
    CHECK(changed.contains(field.key));
  }
}

TEST_CASE("config: each key alone, nested and with its dots, changes its own member") {
  test::Random random(21);
  for (const ConfigField& field : config_fields()) {
    CAPTURE(field.key);
    for (int i = 0; i < 30; ++i) {
      const ConfigValue value = test::random_value(field, random);
      CacheConfig expected;
      if (field.key == "preset")
        expected = config_preset(std::get<std::string>(value)).value();
      else
        field.set(expected, value);
      REQUIRE(field.get(expected) == value);
      for (const ConfigField& other : config_fields())
        if (field.key != "preset" && other.key != field.key) REQUIRE(other.get(expected) == other.get(CacheConfig()));
      const std::string json = std::visit([](const auto& v) { return nlohmann::json(v).dump(); }, value);
      for (const std::string& text : {test::nested_json(field.key, json), test::flat_json(field.key, json)}) {
        const Result<CacheConfig> config = config_from_json(text);
        INFO(text);
        INFO(config.status().message());
        REQUIRE(config.ok() == validate_config(expected).ok());
        if (config.ok()) REQUIRE(config.value() == expected);
      }
    }
  }
}

TEST_CASE("config: a preset is applied before the other keys, wherever it stands") {
  CacheConfig expected = config_preset("llm").value();
  expected.capacity_tokens = 65536;
  expected.tiers.host_bytes = 512ull << 20;
  expected.policy.ttl_ms = 300'000;
  CHECK(read(R"({"capacity_tokens": 65536, "tiers": {"host_bytes": "512MiB"},
                 "policy": {"ttl_ms": "5m"}, "preset": "llm"})") == expected);
  CHECK(read(R"({"preset": "llm", "policy.ttl_ms": 300000,
                 "tiers.host_bytes": 536870912, "capacity_tokens": 65536})") == expected);
}

TEST_CASE("config: a preset's disk tier waits for a folder") {
  CacheConfig expected = config_preset("mobile").value();
  CHECK(expected.tiers.disk_folder.empty());
  expected.tiers.disk_folder = "cache";
  CHECK(read(R"({"preset": "mobile", "tiers": {"disk_folder": "cache"}})") == expected);
  CHECK(expected.tiers.disk_bytes == 64ull << 20);
}

TEST_CASE("config: sizes and durations with units are exact or refused") {
  constexpr std::pair<std::string_view, std::uint64_t> kBytes[] = {{"0B", 0},
                                                                   {"7B", 7},
                                                                   {"1kB", 1000},
                                                                   {"1KB", 1000},
                                                                   {"1KiB", 1024},
                                                                   {"2MB", 2'000'000},
                                                                   {"512MiB", 536'870'912},
                                                                   {"2GB", 2'000'000'000},
                                                                   {"2 GiB", 2'147'483'648},
                                                                   {"1.5GiB", 1'610'612'736},
                                                                   {"0.125KiB", 128},
                                                                   {"1.001kB", 1001},
                                                                   {"3TB", 3'000'000'000'000},
                                                                   {"1TiB", 1'099'511'627'776},
                                                                   {"18446744073709551615B", UINT64_MAX},
                                                                   {"007B", 7}};
  for (const auto& [text, bytes] : kBytes) {
    CAPTURE(text);
    CHECK(bytes_from_text(text) == bytes);
  }
  constexpr std::pair<std::string_view, std::uint64_t> kTimes[] = {
      {"0s", 0},          {"250ms", 250},     {"30s", 30'000}, {"5m", 300'000},
      {"2 h", 7'200'000}, {"1d", 86'400'000}, {"1.5s", 1500}};
  for (const auto& [text, ms] : kTimes) {
    CAPTURE(text);
    CHECK(duration_from_text(text) == ms);
  }
  for (const std::string_view text : {"",
                                      "MiB",
                                      "5",
                                      "5 ",
                                      "5mib",
                                      "5Mib",
                                      "5M",
                                      "-5MiB",
                                      "+5MiB",
                                      "5  MiB",
                                      " 5MiB",
                                      "5MiB ",
                                      "1.5B",
                                      "0.3KiB",
                                      ".5KiB",
                                      "5.KiB",
                                      "1.5.5KiB",
                                      "1.0001GiB",
                                      "1e3MiB",
                                      "0x10B",
                                      "18446744073709551616B",
                                      "18446744073709551615kB",
                                      "16777216TiB",
                                      "99999999999999999999999B",
                                      "5s",
                                      "5m",
                                      "5,5GB",
                                      "5\tGB"}) {
    CAPTURE(text);
    CHECK_FALSE(bytes_from_text(text).has_value());
  }
  for (const std::string_view text :
       {"", "5", "5min", "5M", "5MiB", "-5s", "0.5ms", "1.0005s", "99999999999999999999d", "5 s "}) {
    CAPTURE(text);
    CHECK_FALSE(duration_from_text(text).has_value());
  }
}

TEST_CASE("config: pairs of formats") {
  CHECK(format_pair_from_text("q8_0") == FormatPair{FormatId::q8_0, FormatId::q8_0});
  CHECK(format_pair_from_text("q8_0/q4_0") == FormatPair{FormatId::q8_0, FormatId::q4_0});
  for (const std::string_view text : {"", "/", "q8_0/", "/q8_0", "q8_0/q4_0/f16", "q9_0", "q8_0,q4_0", "Q8_0"})
    CHECK_FALSE(format_pair_from_text(text).has_value());
}

TEST_CASE("config: an invalid configuration can still be written for a look at it") {
  CacheConfig config;
  config.model_id = "\xff\xfe";
  CHECK_FALSE(validate_config(config).ok());
  CHECK(nlohmann::json::parse(config_to_json(config)).at("model_id") == "\xEF\xBF\xBD\xEF\xBF\xBD");
}

}  // namespace
}  // namespace kvant
