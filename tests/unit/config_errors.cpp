// What a configuration may not be: wrong types, values out of range, unknown and repeated keys, hostile texts,
// mutations.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "config_random.hpp"
#include "config_reader.hpp"

namespace kvant {
namespace {

// The message of the error that there must be.
std::string error_of(std::string_view text) {
  const Result<CacheConfig> config = config_from_json(text);
  INFO(text.substr(0, 500));
  REQUIRE_FALSE(config.ok());
  CHECK(config.status().code() == StatusCode::invalid_argument);
  CHECK(plain_text(config.status().message()));
  CHECK(config.status().message().size() < 1000);
  return config.status().message();
}
bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

bool is_number(FieldType type) {
  return type == FieldType::count || type == FieldType::bytes || type == FieldType::duration;
}

std::vector<std::string> wrong_types(const ConfigField& field) {
  std::vector<std::string> wrong = {"null", "[]", "[1, {\"a\": [2]}]", "{}", "{\"a\": 1, \"a\": {\"b\": []}}",
                                    "1.5",  "-1", "1e999999"};
  const auto add = [&](std::initializer_list<const char*> more) {
    wrong.insert(wrong.end(), more.begin(), more.end());
  };
  if (field.type == FieldType::boolean) add({"0", "1", "\"true\"", "\"\""});
  if (is_number(field.type)) add({"true", "\"\"", "\"many\"", "\"32\"", "1e1", "32.0", "-9223372036854775809"});
  if (field.type == FieldType::count) add({"\"1KiB\"", "\"1s\""});
  if (field.type == FieldType::bytes) add({"\"100s\"", "\"-1MiB\"", "\"1.3B\"", "\"100 mib\""});
  if (field.type == FieldType::duration) add({"\"1MiB\"", "\"-1s\"", "\"0.3ms\"", "\"1 min\""});
  if (!is_number(field.type) && field.type != FieldType::boolean) add({"true", "16"});
  return wrong;
}

std::vector<std::string> out_of_range(const ConfigField& field) {
  std::vector<std::string> wrong;
  if (is_number(field.type)) {
    wrong = {std::to_string(field.most + 1), "18446744073709551615", "18446744073709551616"};
    if (field.least > 1) wrong.push_back(std::to_string(field.least - 1));
    if (field.least > 0 && !field.zero) wrong.emplace_back("0");
    if (field.step > 1) wrong.push_back(std::to_string(field.least + 1));
  }
  if (field.type == FieldType::bytes) wrong.emplace_back("\"9000TiB\"");
  if (field.type == FieldType::duration) wrong.emplace_back("\"3651d\"");
  if (field.type == FieldType::name || field.type == FieldType::format || field.type == FieldType::format_pair)
    wrong = {"\"other\"", "\" \"", "\"LRU\"", "\"q4_0 \"", "\"\\u0000\""};
  if (field.type == FieldType::format) wrong.emplace_back("\"q8_0/q4_0\"");
  if (field.type == FieldType::text)
    wrong = {'"' + std::string(field.most + 1, 'a') + '"', "\"a\\u0000b\"", "\"a\\nb\""};
  if (field.type == FieldType::servers)
    wrong = {"\",\"",
             "\"a,\"",
             "\",a\"",
             "\"a:0\"",
             "\"a:65536\"",
             "\"a:\"",
             "\"a:1:2\"",
             "\"a b\"",
             "\":11211\"",
             "\"a:000001\"",
             '"' + std::string(field.most + 1, 'a') + '"'};
  return wrong;
}

TEST_CASE("config: every key refuses what is of another type or out of range, by its name") {
  for (const ConfigField& field : config_fields()) {
    std::vector<std::string> wrong = wrong_types(field);
    for (std::string& json : out_of_range(field)) wrong.push_back(std::move(json));
    for (const std::string& json : wrong) {
      for (const std::string& text : {test::nested_json(field.key, json), test::flat_json(field.key, json)}) {
        const std::string message = error_of(text);
        CAPTURE(message);
        CHECK(has(message, field.key));
        // A number beyond double's range is none to the parser already; all others are weighed by the field.
        if (json != "1e999999") {
          CHECK(message.starts_with(std::string(field.key) + " ("));
          CHECK(has(message, ") is not " + expected_text(field)));
        }
      }
    }
  }
}

TEST_CASE("config: validation refuses members out of range, by their keys") {
  for (const ConfigField& field : config_fields()) {
    if (!is_number(field.type) && field.type != FieldType::text) continue;
    CAPTURE(field.key);
    CacheConfig config;
    if (field.type == FieldType::text)
      field.set(config, std::string("a\0b", 3));
    else
      field.set(config, field.most + 1);
    const Status status = validate_config(config);
    REQUIRE_FALSE(status.ok());
    CHECK(status.message().starts_with(std::string(field.key) + " ("));
  }
  CacheConfig config;
  config.policy.kind = static_cast<PolicyKind>(99);
  CHECK(validate_config(config).message().starts_with(
      "policy.kind (\"unknown\") is not one of none, lru, window, adaptive"));
}

TEST_CASE("config: the sentences") {
  CHECK(error_of(R"({"tiers": {"disk_byte": 5}})") == "tiers.disk_byte is no key; did you mean tiers.disk_bytes?");
  CHECK(error_of(R"({"page_tokens": 24})") == "page_tokens (24) is not 16 or 32");
  CHECK(error_of(R"({"policy": {"ttl_ms": -3}})") ==
        "policy.ttl_ms (-3) is not a whole number from 0 to 315360000000 milliseconds, or text such as \"30s\" or "
        "\"5m\"");
  CHECK(error_of(R"({"slab_bytes": 1.5})") ==
        "slab_bytes (1.5) is not 0 or a whole number from 65536 to 4294967296 bytes, or text such as \"512MiB\" or "
        "\"2GB\"");
  CHECK(error_of(R"({"prefix_cache": "yes"})") == "prefix_cache (\"yes\") is not true or false");
  CHECK(error_of(R"({"preset": "server"})") == "preset (\"server\") is not one of llm, mobile, research, or empty");
  CHECK(error_of(R"({"hybrid": 3})") ==
        "hybrid (3) is not an object of the keys hot_format, cold_format, promote_uses");
  CHECK(error_of(R"({"hybrid": []})") ==
        "hybrid (array) is not an object of the keys hot_format, cold_format, promote_uses");
  CHECK(error_of("3") == "the configuration (3) is not an object such as {\"preset\": \"llm\"}");
  CHECK(error_of("[]") == "the configuration is an array; expected an object such as {\"preset\": \"llm\"}");
}

TEST_CASE("config: an unknown key is told the nearest one") {
  constexpr std::pair<std::string_view, std::string_view> kSlips[] = {{"capacity_token", "capacity_tokens"},
                                                                      {"Page_tokens", "page_tokens"},
                                                                      {"pgae_tokens", "page_tokens"},
                                                                      {"disk_bytes", "tiers.disk_bytes"},
                                                                      {"policy.tll_ms", "policy.ttl_ms"},
                                                                      {"ttl_ms", "policy.ttl_ms"},
                                                                      {"policy.disk_folder", "tiers.disk_folder"},
                                                                      {"formatk", "format_k"},
                                                                      {"hybrid.hot_fromat", "hybrid.hot_format"},
                                                                      {"event", "events"},
                                                                      {"model", "model_id"}};
  for (const auto& [slip, key] : kSlips) {
    CAPTURE(slip);
    for (const std::string& text : {test::nested_json(slip, "1"), test::flat_json(slip, "1")}) {
      const std::string message = error_of(text);
      // Nested, a section that does not exist is found first; there is none in these.
      CHECK(message == std::string(slip) + " is no key; did you mean " + std::string(key) + "?");
    }
  }
  // One letter less anywhere in any key leads back to it, but for the one that is as near to two.
  for (const ConfigField& field : config_fields()) {
    for (std::size_t i = 0; i < field.key.size(); ++i) {
      std::string slip(field.key);
      slip.erase(i, 1);
      if (slip == "format_") continue;
      const std::string message = error_of(test::flat_json(slip, "1"));
      CAPTURE(slip);
      CHECK(has(message, slip + " is no key; did you mean " + std::string(field.key) + "?"));
    }
  }
  CHECK(has(error_of(R"({"tier": {"host_bytes": 1}})"), "tier is no key"));
  CHECK(has(error_of(R"({"": 1})"), " is no key"));
  CHECK(has(error_of(R"({"tiers": {"": 1}})"), "tiers. is no key"));
  CHECK(has(error_of(R"({"tiers": {"tiers": {"host_bytes": 1}}})"), "tiers.tiers is no key"));
  CHECK(has(error_of(R"({"tiers": {"policy": {}}})"), "tiers.policy is no key"));
  CHECK(has(error_of(R"({"a\u0000\u001b[2Jb": 1})"), "a??[2Jb is no key"));
  CHECK(has(error_of("{\"" + std::string(100'000, 'k') + "\": 1}"), " is no key; none is longer than 64 bytes"));
  CHECK(has(error_of("{\"a\\n\x7f" + std::string(70, 'k') + "\": 1}"), "a??kkk"));
  CHECK(has(error_of("{\"hy\\brid\": 1, \"\xff\": 2}"), "no UTF-8 text: byte 16 is 0xff"));
  CHECK(has(error_of("{\"events\": 1 \x7f}"), "no JSON at or after events"));
}

TEST_CASE("config: a key may be there once, whichever way it is written") {
  CHECK(error_of(R"({"events": 1, "events": 2})") == "events is there twice; expected it once");
  CHECK(error_of(R"({"preset": "llm", "preset": "llm"})") == "preset is there twice; expected it once");
  CHECK(error_of(R"({"tiers": {"host_bytes": 1, "host_bytes": 1}})") ==
        "tiers.host_bytes is there twice; expected it once");
  CHECK(error_of(R"({"tiers": {"host_bytes": 1}, "tiers": {"min_tokens": 1}})") ==
        "tiers is there twice; expected it once");
  CHECK(error_of(R"({"tiers": {"host_bytes": 1}, "tiers.host_bytes": 1})") ==
        "tiers.host_bytes is there twice; expected it once");
  CHECK(error_of(R"({"eve\u006ets": 1, "events": 2})") == "events is there twice; expected it once");
}

TEST_CASE("config: nesting, length and encoding have limits") {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + "1" + std::string(depth, ']'); };
  // With the object around it that is 8 levels, which is a wrong type, and 9, which is too deep.
  CHECK(has(error_of("{\"events\": " + nested(7) + "}"), "events (array) is not"));
  CHECK(has(error_of("{\"events\": " + nested(8) + "}"),
            "events is nested deeper than 8 levels; expected a whole number"));
  CHECK(has(error_of("{\"events\": " + nested(200'000) + "}"), "events is nested deeper than 8 levels"));
  CHECK(has(error_of(std::string(200'000, '[')), "the configuration is an array"));
  std::string objects = "{\"model_id\": ";
  for (int i = 0; i < 100; ++i) objects += "{\"a\":";
  CHECK(has(error_of(objects), "model_id is nested deeper than 8 levels"));

  std::string text = "{\"events\": 5" + std::string(kMostConfigBytes - 13, ' ') + "}";
  REQUIRE(text.size() == kMostConfigBytes);
  CHECK(config_from_json(text).ok());
  text += ' ';
  CHECK(error_of(text) == "the configuration (1048577 bytes) is longer than 1048576 bytes");

  CHECK(has(error_of("{\"model_id\": \"a\xff\"}"), "no UTF-8 text at or after model_id: byte 15 is 0xff"));
  for (const char* bad : {"\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80", "\xC3", "\xE2\x82", "\xF0\x9F\x99"}) {
    CHECK(has(error_of("{\"model_id\": \"" + std::string(bad) + "\"}"), "no UTF-8 text at or after model_id: byte 14"));
    CHECK(
        has(error_of("{\"model_id\": \"m\", \"" + std::string(bad) + "\": 1}"), "no UTF-8 text at or after model_id"));
  }
  CHECK(has(error_of(std::string("{}\0", 3)), "no UTF-8 text: byte 2 is 0x00"));
  CHECK(has(error_of(R"({"model_id": "\ud800"})"), "model_id"));
}

TEST_CASE("config: what is no JSON says where, and after which key") {
  for (const std::string_view text :
       {R"({"events": 5,})", R"({"events": 5)", R"({"events": 05})", R"({"events" 5})", R"({"events": })",
        R"({"events": NaN})", R"({"events": 5} x)", R"({"events": 5 // five)", "{\"events\": 'five'}"}) {
    const std::string message = error_of(text);
    CAPTURE(message);
    CHECK(has(message, "the configuration is no JSON at or after events, byte "));
  }
  for (const std::string_view text : {"", " ", "{", "{,}", "preset", "\"", "{'events': 5}"})
    CHECK(has(error_of(text), "the configuration is no JSON at its beginning"));
}

std::string mutated(std::string text, test::Random& random) {
  static constexpr std::string_view kPieces[] = {
      "{",        "}",   "[",     "]",   ":",       ",",       "\"",         "\\",          "null",
      "true",     "-",   "1e308", "0.5", "\\u0000", "\\ud800", "\"tiers\":", "\"events\":", "99999999999999999999",
      "\"1GiB\"", "\xff"};
  for (std::uint32_t i = random.between(1, 3); i > 0 && !text.empty(); --i) {
    const std::size_t at = random.below(static_cast<std::uint32_t>(text.size()));
    const std::size_t length = random.between(1, 12);
    switch (random.below(6)) {
      case 0:
        text[at] = static_cast<char>(random.below(256));
        break;
      case 1:
        text[at] = static_cast<char>(random.between('0', '9'));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, kPieces[random.below(std::size(kPieces))]);
        break;
      case 4:
        text.insert(random.below(static_cast<std::uint32_t>(text.size())), std::string(text, at, length * 5));
        break;
      default:
        text.resize(at);
        break;
    }
  }
  return text;
}

TEST_CASE("config: ten thousand mutations of valid texts are read rightly or refused with a sentence") {
  test::Random random(22);
  std::uint32_t taken = 0, refused = 0;
  std::string text;
  for (int i = 0; i < 10'000; ++i) {
    if (i % 20 == 0) text = config_to_json(test::random_config(random));
    const std::string mutation = mutated(text, random);
    const Result<CacheConfig> config = config_from_json(mutation);
    INFO(mutation);
    if (config.ok()) {
      ++taken;
      REQUIRE(validate_config(config.value()).ok());
      const Result<CacheConfig> again = config_from_json(config_to_json(config.value()));
      REQUIRE(again.ok());
      REQUIRE(again.value() == config.value());
      // Whatever was taken is JSON to a parser that knows nothing of keys.
      REQUIRE(nlohmann::json::accept(mutation));
    } else {
      ++refused;
      REQUIRE_FALSE(config.status().message().empty());
      REQUIRE(plain_text(config.status().message()));
    }
  }
  CHECK(taken > 100);
  CHECK(refused > 5000);
}

}  // namespace
}  // namespace kvant
