// JsonWriter and JsonTree: what they write and read is what nlohmann::json writes and reads.
#include <doctest/doctest.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "host_random.hpp"
#include "json_tree.hpp"
#include "json_writer.hpp"

using namespace kvant;
using kvant::test::Random;

namespace {

using Json = nlohmann::ordered_json;

std::string dumped(const Json& json, std::uint32_t indent) {
  return json.dump(indent == 0 ? -1 : static_cast<int>(indent), ' ', false, Json::error_handler_t::replace);
}

void write(JsonWriter& writer, const Json& json) {
  if (json.is_object()) {
    writer.begin_object();
    for (const auto& [key, value] : json.items()) {
      writer.key(key);
      write(writer, value);
    }
    writer.end_object();
  } else if (json.is_array()) {
    writer.begin_array();
    for (const Json& value : json) write(writer, value);
    writer.end_array();
  } else if (json.is_string()) {
    writer.value(json.get_ref<const std::string&>());
  } else if (json.is_boolean()) {
    writer.value(json.get<bool>());
  } else if (json.is_number_unsigned()) {
    writer.value(json.get<std::uint64_t>());
  } else if (json.is_number_integer()) {
    writer.value(json.get<std::int64_t>());
  } else if (json.is_number_float()) {
    writer.value(json.get<double>());
  } else {
    writer.null();
  }
}

std::string written(const Json& json, std::uint32_t indent) {
  std::string text;
  JsonWriter writer(text, indent);
  write(writer, json);
  return text;
}

// Whole characters and bytes that begin, continue, cut or forbid one, in any order.
std::string random_text(Random& random, bool utf8) {
  static constexpr std::string_view kWhole[] = {
      "a",    "\"",   "\\",   "/", "\b", "\f",           "\n",           "\r",   "\t",
      "\x01", "\x1F", "\x7F", "ä", "日", "\xED\x9F\xBF", "\xEF\xBF\xBF", "🙂", "\xF4\x8F\xBF\xBF"};
  static constexpr std::string_view kPieces[] = {"\x80",     "\xBF",     "\xC0",     "\xC1",     "\xC2", "\xDF",
                                                 "\xE0",     "\xE0\xA0", "\xE1",     "\xED\xA0", "\xEF", "\xF0",
                                                 "\xF0\x8F", "\xF0\x90", "\xF4\x90", "\xF5",     "\xFF"};
  std::string text;
  for (std::uint32_t i = random.below(12); i > 0; --i)
    text +=
        utf8 || random.chance(40) ? kWhole[random.below(std::size(kWhole))] : kPieces[random.below(std::size(kPieces))];
  return text;
}

Json random_json(Random& random, std::uint32_t depth, bool utf8) {
  static constexpr double kDoubles[] = {0.0,  -0.0, 1.0,  0.5,       -2.25, 1e-4,  1e-5,
                                        1e14, 1e15, 1e16, 123456.75, 1e300, 1e-300};
  const std::uint32_t kind = random.below(depth == 0 ? 6 : 9);
  if (kind == 0) return nullptr;
  if (kind == 1) return random.chance(50);
  if (kind == 2) return std::uint64_t{random.below(0xFFFFFFFFu)} << random.below(33);
  if (kind == 3) return -static_cast<std::int64_t>(random.between(1, 0xFFFFFFF0u));
  if (kind == 4) return kDoubles[random.below(std::size(kDoubles))];
  if (kind == 5) return random_text(random, utf8);
  const bool is_object = kind >= 7;
  Json json = is_object ? Json::object() : Json::array();
  for (std::uint32_t i = random.below(5); i > 0; --i) {
    if (is_object)
      json[random_text(random, utf8)] = random_json(random, depth - 1, utf8);
    else
      json.push_back(random_json(random, depth - 1, utf8));
  }
  return json;
}

std::string double_text(double number) {
  std::string text;
  JsonWriter(text).value(number);
  return text;
}

}  // namespace

TEST_SUITE("json") {
  TEST_CASE("documents are written as nlohmann::json writes them, to the byte") {
    Random random(1);
    for (int i = 0; i < 3000; ++i) {
      const Json json = random_json(random, 4, i % 2 == 0);
      for (const std::uint32_t indent : {0u, 2u}) CHECK(written(json, indent) == dumped(json, indent));
    }
  }

  TEST_CASE("every single byte and every pair of them is written as nlohmann::json writes it") {
    for (std::uint32_t a = 0; a < 256; ++a) {
      const std::string one(1, static_cast<char>(a));
      CHECK(written(one, 0) == dumped(one, 0));
      for (std::uint32_t b = 0; b < 256; ++b) {
        const std::string two{static_cast<char>(a), static_cast<char>(b)};
        if (written(two, 0) != dumped(two, 0)) FAIL_CHECK(a << " " << b);
      }
    }
  }

  TEST_CASE("doubles come back as they were, with as few digits as that takes") {
    for (const double number : {0.0,
                                -0.0,
                                1.0,
                                -1.0,
                                0.1,
                                1.0 / 3,
                                1e-3,
                                1e-4,
                                1.5e-4,
                                1e-5,
                                1.25e-7,
                                1e14,
                                123456789012345.0,
                                1e15,
                                1.5e15,
                                1e16,
                                1e21,
                                1e100,
                                1.25e-100,
                                5e-324,
                                1.7976931348623157e308,
                                2.5,
                                1000.0,
                                48.0,
                                static_cast<double>(0.1F),
                                0.001023}) {
      CHECK(double_text(number) == Json(number).dump());
      CHECK(double_text(-number) == Json(-number).dump());
    }
    CHECK(double_text(std::numeric_limits<double>::infinity()) == "null");
    CHECK(double_text(std::numeric_limits<double>::quiet_NaN()) == "null");
    Random random(2);
    for (int i = 0; i < 100000; ++i) {
      const double number =
          std::bit_cast<double>(std::uint64_t{random.below(0xFFFFFFFFu)} << 32 | random.below(0xFFFFFFFFu));
      if (!std::isfinite(number)) continue;
      const std::string text = double_text(number);
      double back = 0;
      CHECK(std::from_chars(text.data(), text.data() + text.size(), back).ptr == text.data() + text.size());
      CHECK(std::bit_cast<std::uint64_t>(back) == std::bit_cast<std::uint64_t>(number));
      CHECK(text.size() <= Json(number).dump().size());
    }
  }

  TEST_CASE("what is read is written again") {
    Random random(3);
    for (int i = 0; i < 3000; ++i) {
      const Json json = random_json(random, 4, true);
      const std::string text = dumped(json, random.chance(50) ? 2 : 0);
      const std::optional<JsonTree> tree = JsonTree::parse(text);
      REQUIRE(tree);
      CHECK(tree->root().text() == dumped(json, 0));
      CHECK(tree->root().size() == (json.is_structured() ? json.size() : 0));
    }
  }

  TEST_CASE("what is no JSON is none here either") {
    Random random(4);
    std::uint32_t refused = 0;
    for (int i = 0; i < 5000; ++i) {
      std::string text = dumped(random_json(random, 3, true), 0);
      for (std::uint32_t n = random.between(1, 3); n > 0 && !text.empty(); --n) {
        static constexpr std::string_view kBytes = "{}[],:\"\\01e.-tn \x01\x80\xC3";
        text[random.below(static_cast<std::uint32_t>(text.size()))] = kBytes[random.below(std::size(kBytes))];
      }
      const bool is_json = !Json::parse(text, nullptr, false).is_discarded();
      CHECK(JsonTree::parse(text).has_value() == is_json);
      refused += is_json ? 0 : 1;
    }
    CHECK(refused > 1000);
    CHECK_FALSE(JsonTree::parse(""));
    CHECK_FALSE(JsonTree::parse("1e999"));
  }

  TEST_CASE("members are found, the last one of a key that is there twice") {
    const auto tree =
        JsonTree::parse(R"({"a": 1, "b": {"a": 2, "c": [true, []]}, "a": -3, "d": 18446744073709551616})");
    REQUIRE(tree);
    const JsonView root = tree->root();
    CHECK(root.size() == 4);
    CHECK(root.find("a")->node().negative == -3);
    CHECK(root.find("b")->find("a")->node().whole == 2);
    CHECK(root.find("b")->find("c")->size() == 2);
    CHECK_FALSE(root.find("b")->find("c")->first()->next(*root.find("b")->find("c"))->first());
    CHECK(root.find("d")->is(JsonNode::Kind::fraction));
    CHECK_FALSE(root.find("c"));
    CHECK_FALSE(root.find("a")->find("a"));
    CHECK_FALSE(root.find("b")->number());
  }

  TEST_CASE("nesting costs no stack") {
    constexpr std::size_t kDeep = 1'000'000;
    const std::string text = std::string(kDeep, '[') + std::string(kDeep, ']');
    const auto tree = JsonTree::parse(text);
    REQUIRE(tree);
    CHECK(tree->root().text() == text);
  }
}
