// DeviceSnapshot to and from JSON, and its narrowing by a JSON object; all three visit the list in device_fields.hpp.
#include <algorithm>
#include <bit>
#include <concepts>
#include <limits>
#include <set>
#include <span>

#include "device_fields.hpp"
#include "json_tree.hpp"
#include "json_writer.hpp"
#include "quoted_text.hpp"

namespace kvant {
namespace {

using Kind = JsonNode::Kind;

Status wrong_type(std::string_view key, std::string_view expected) {
  return {StatusCode::invalid_argument, "capability \"" + std::string(key) + "\" must be " + std::string(expected)};
}

// --- values to JSON ---
template <std::integral T>
void write(JsonWriter& json, T value) {
  json.value(value);
}
void write(JsonWriter& json, float value) { json.value(value); }
void write(JsonWriter& json, const std::string& value) { json.value(value); }
void write(JsonWriter& json, DeviceType value) { json.value(device_type_name(value)); }
void write(JsonWriter& json, const std::array<std::uint8_t, 16>& value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : value) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  json.value(text);
}
void write_numbers(JsonWriter& json, std::span<const std::uint32_t> numbers) {
  json.begin_array();
  for (const std::uint32_t number : numbers) json.value(number);
  json.end_array();
}
void write(JsonWriter& json, const std::array<std::uint32_t, 3>& value) { write_numbers(json, value); }
void write(JsonWriter& json, const CoopmatShape& s) {
  write_numbers(json, std::array{s.m, s.n, s.k, s.a_type, s.b_type, s.c_type, s.result_type, s.scope});
}
void write(JsonWriter& json, const MemoryHeap& heap) {
  json.begin_object();
  json.member("size", heap.size);
  json.member("device_local", heap.device_local);
  json.end_object();
}
void write(JsonWriter& json, const MemoryType& type) {
  json.begin_object();
  json.member("flags", type.flags);
  json.member("heap", type.heap);
  json.end_object();
}
void write(JsonWriter& json, const QueueFamily& family) {
  json.begin_object();
  json.member("flags", family.flags);
  json.member("count", family.count);
  json.member("timestamp_bits", family.timestamp_bits);
  json.end_object();
}
template <typename T>
void write(JsonWriter& json, const std::vector<T>& values) {
  json.begin_array();
  for (const T& value : values) write(json, value);
  json.end_array();
}
template <typename T>
std::string json_text(const T& value) {
  std::string text;
  JsonWriter json(text);
  write(json, value);
  return text;
}

// --- JSON to values; each returns what it expected when the JSON is something else, or null ---
const char* from_json(const JsonView& json, bool& value) {
  if (!json.is(Kind::boolean)) return "true or false";
  value = json.node().flag;
  return nullptr;
}
const char* from_json(const JsonView& json, std::string& value) {
  if (!json.is(Kind::string)) return "a string";
  value = json.node().text;
  return nullptr;
}
const char* from_json(const JsonView& json, float& value) {
  const std::optional<double> number = json.number();
  if (!number) return "a number";
  value = static_cast<float>(*number);
  return nullptr;
}
template <std::unsigned_integral T>
const char* from_json(const JsonView& json, T& value) {
  const char* expected = sizeof(T) == 8 ? "a whole number of 64 bits" : "a whole number of 32 bits";
  if (!json.is(Kind::whole) || json.node().whole > std::numeric_limits<T>::max()) return expected;
  value = static_cast<T>(json.node().whole);
  return nullptr;
}
const char* from_json(const JsonView& json, DeviceType& value) {
  if (json.is(Kind::string)) {
    for (std::uint32_t i = 0; i <= static_cast<std::uint32_t>(DeviceType::cpu); ++i) {
      value = static_cast<DeviceType>(i);
      if (json.node().text == device_type_name(value)) return nullptr;
    }
  }
  return "one of other, integrated, discrete, virtual, cpu";
}
const char* from_json(const JsonView& json, std::array<std::uint8_t, 16>& value) {
  static constexpr const char* kExpected = "32 hexadecimal digits";
  if (!json.is(Kind::string)) return kExpected;
  const std::string& text = json.node().text;
  if (text.size() != 32 || text.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) return kExpected;
  for (std::size_t i = 0; i < value.size(); ++i)
    value[i] = static_cast<std::uint8_t>(std::stoul(text.substr(i * 2, 2), nullptr, 16));
  return nullptr;
}
// All numbers of an array of just as many.
bool read_numbers(const JsonView& json, std::span<std::uint32_t* const> numbers) {
  if (!json.is(Kind::array) || json.size() != numbers.size()) return false;
  auto element = json.first();
  for (std::uint32_t* const number : numbers) {
    if (from_json(*element, *number) != nullptr) return false;
    element = element->next(json);
  }
  return true;
}
const char* from_json(const JsonView& json, std::array<std::uint32_t, 3>& value) {
  std::uint32_t* const numbers[] = {&value[0], &value[1], &value[2]};
  return read_numbers(json, numbers) ? nullptr : "an array of 3 whole numbers";
}
const char* from_json(const JsonView& json, CoopmatShape& s) {
  std::uint32_t* const numbers[] = {&s.m, &s.n, &s.k, &s.a_type, &s.b_type, &s.c_type, &s.result_type, &s.scope};
  return read_numbers(json, numbers) ? nullptr : "shapes [m, n, k, a_type, b_type, c_type, result_type, scope]";
}
template <typename T>
bool member(const JsonView& json, const char* key, T& value) {
  const std::optional<JsonView> found = json.find(key);
  return found && from_json(*found, value) == nullptr;
}
const char* from_json(const JsonView& json, MemoryHeap& heap) {
  const bool good = member(json, "size", heap.size) && member(json, "device_local", heap.device_local);
  return good ? nullptr : "heaps {\"size\", \"device_local\"}";
}
const char* from_json(const JsonView& json, MemoryType& type) {
  return member(json, "flags", type.flags) && member(json, "heap", type.heap) ? nullptr : "types {\"flags\", \"heap\"}";
}
const char* from_json(const JsonView& json, QueueFamily& family) {
  const bool good = member(json, "flags", family.flags) && member(json, "count", family.count) &&
                    member(json, "timestamp_bits", family.timestamp_bits);
  return good ? nullptr : "families {\"flags\", \"count\", \"timestamp_bits\"}";
}
template <typename T>
const char* from_json(const JsonView& json, std::vector<T>& values) {
  if (!json.is(Kind::array)) return "an array";
  values.clear();
  for (auto element = json.first(); element; element = element->next(json)) {
    T value{};
    if (const char* expected = from_json(*element, value); expected != nullptr) return expected;
    values.push_back(std::move(value));
  }
  return nullptr;
}

// --- may `next` replace `now` under the rule? ---
template <typename T>
bool within_rule(const T& now, const T& next, NarrowRule rule, const DeviceSnapshot& device) {
  if (now == next) return true;
  if constexpr (std::is_same_v<T, bool>) {
    return rule == NarrowRule::flag && !next;
  } else if constexpr (std::unsigned_integral<T>) {
    if (rule == NarrowRule::at_most) return next <= now;
    if (rule == NarrowRule::at_least) return next >= now && std::has_single_bit(next);
    if (rule == NarrowRule::bits) return (next & ~now) == 0;
    return rule == NarrowRule::within && device.subgroup_size_control && std::has_single_bit(next) &&
           next >= device.subgroup_min_size && next <= device.subgroup_max_size;
  } else if constexpr (std::is_same_v<T, std::array<std::uint32_t, 3>>) {
    return rule == NarrowRule::at_most && next[0] <= now[0] && next[1] <= now[1] && next[2] <= now[2];
  } else if constexpr (std::is_same_v<T, std::vector<std::string>> || std::is_same_v<T, std::vector<CoopmatShape>>) {
    return rule == NarrowRule::subset && std::all_of(next.begin(), next.end(), [&now](const auto& element) {
             return std::find(now.begin(), now.end(), element) != now.end();
           });
  } else {
    return false;
  }
}

Result<JsonTree> parse_object(std::string_view text) {
  std::optional<JsonTree> tree = JsonTree::parse(text);
  if (!tree || !tree->root().is(Kind::object))
    return Status(StatusCode::invalid_argument, "the capabilities are not a JSON object");
  return *std::move(tree);
}

Status check_keys(const JsonView& json, const std::set<std::string, std::less<>>& known) {
  for (auto item = json.first(); item; item = item->next(json)) {
    if (!known.contains(item->node().key))
      return {StatusCode::invalid_argument,
              "capability \"" + quoted_text(item->node().key) + "\" is not a key of the device snapshot"};
  }
  return {};
}

}  // namespace

void write_snapshot(JsonWriter& json, const DeviceSnapshot& snapshot) {
  json.begin_object();
  visit_snapshot_fields(snapshot, [&json](const char* key, const auto& field, NarrowRule) {
    json.key(key);
    write(json, field);
  });
  json.end_object();
}

std::string snapshot_to_json(const DeviceSnapshot& snapshot) {
  std::string text;
  JsonWriter json(text, 2);
  write_snapshot(json, snapshot);
  return text;
}

Result<DeviceSnapshot> snapshot_from_json(std::string_view text) {
  KVANT_ASSIGN(const JsonTree tree, parse_object(text));
  const JsonView json = tree.root();
  DeviceSnapshot snapshot;
  Status status;
  std::set<std::string, std::less<>> known;
  visit_snapshot_fields(snapshot, [&](const char* key, auto& field, NarrowRule) {
    known.insert(key);
    const std::optional<JsonView> found = status.ok() ? json.find(key) : std::nullopt;
    if (!found) return;
    if (const char* expected = from_json(*found, field); expected != nullptr) status = wrong_type(key, expected);
  });
  KVANT_TRY(status);
  KVANT_TRY(check_keys(json, known));
  return snapshot;
}

Status narrow_snapshot(DeviceSnapshot& snapshot, std::string_view override_json) {
  KVANT_ASSIGN(const JsonTree tree, parse_object(override_json));
  const JsonView json = tree.root();
  DeviceSnapshot narrowed = snapshot;
  Status status;
  std::set<std::string, std::less<>> known;
  visit_snapshot_fields(narrowed, [&](const char* key, auto& field, NarrowRule rule) {
    known.insert(key);
    const std::optional<JsonView> found = status.ok() ? json.find(key) : std::nullopt;
    if (!found) return;
    auto wish = field;
    if (const char* expected = from_json(*found, wish); expected != nullptr) {
      status = wrong_type(key, expected);
    } else if (!within_rule(field, wish, rule, narrowed)) {
      status = {StatusCode::invalid_argument, "capability \"" + std::string(key) + "\" (" + quoted_text(found->text()) +
                                                  ") would widen or change the device's own (" + json_text(field) +
                                                  ")"};
    } else {
      field = std::move(wish);
    }
  });
  KVANT_TRY(status);
  KVANT_TRY(check_keys(json, known));
  if (narrowed.subgroup_size < narrowed.subgroup_min_size || narrowed.subgroup_size > narrowed.subgroup_max_size) {
    return {StatusCode::invalid_argument, "capability \"subgroup_size\" (" + std::to_string(narrowed.subgroup_size) +
                                              ") is outside subgroup_min_size (" +
                                              std::to_string(narrowed.subgroup_min_size) + ") to subgroup_max_size (" +
                                              std::to_string(narrowed.subgroup_max_size) + ")"};
  }
  snapshot = std::move(narrowed);
  return {};
}

}  // namespace kvant
