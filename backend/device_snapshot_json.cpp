// DeviceSnapshot to and from JSON, and its narrowing by a JSON object; all three visit the list in device_fields.hpp.
#include <algorithm>
#include <bit>
#include <concepts>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "device_fields.hpp"
#include "quoted_text.hpp"

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

Status wrong_type(std::string_view key, std::string_view expected) {
  return {StatusCode::invalid_argument, "capability \"" + std::string(key) + "\" must be " + std::string(expected)};
}

// --- values to JSON ---
Json to_json(bool value) { return value; }
Json to_json(const std::string& value) { return value; }
Json to_json(DeviceType value) { return std::string(device_type_name(value)); }
template <std::unsigned_integral T>
Json to_json(T value) {
  return value;
}
Json to_json(float value) { return value; }
Json to_json(const std::array<std::uint32_t, 3>& value) { return Json(value); }
Json to_json(const std::vector<std::string>& value) { return Json(value); }
Json to_json(const std::array<std::uint8_t, 16>& value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : value) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}
Json to_json(const CoopmatShape& s) {
  return Json::array({s.m, s.n, s.k, s.a_type, s.b_type, s.c_type, s.result_type, s.scope});
}
Json to_json(const MemoryHeap& heap) { return {{"size", heap.size}, {"device_local", heap.device_local}}; }
Json to_json(const MemoryType& type) { return {{"flags", type.flags}, {"heap", type.heap}}; }
Json to_json(const QueueFamily& family) {
  return {{"flags", family.flags}, {"count", family.count}, {"timestamp_bits", family.timestamp_bits}};
}
template <typename T>
Json to_json(const std::vector<T>& values) {
  Json array = Json::array();
  for (const T& value : values) array.push_back(to_json(value));
  return array;
}

// --- JSON to values; each returns what it expected when the JSON is something else, or null ---
const char* from_json(const Json& json, bool& value) {
  if (!json.is_boolean()) return "true or false";
  value = json.get<bool>();
  return nullptr;
}
const char* from_json(const Json& json, std::string& value) {
  if (!json.is_string()) return "a string";
  value = json.get<std::string>();
  return nullptr;
}
const char* from_json(const Json& json, float& value) {
  if (!json.is_number()) return "a number";
  value = json.get<float>();
  return nullptr;
}
template <std::unsigned_integral T>
const char* from_json(const Json& json, T& value) {
  const char* expected = sizeof(T) == 8 ? "a whole number of 64 bits" : "a whole number of 32 bits";
  if (!json.is_number_unsigned()) return expected;
  const auto wide = json.get<std::uint64_t>();
  if (wide > std::numeric_limits<T>::max()) return expected;
  value = static_cast<T>(wide);
  return nullptr;
}
const char* from_json(const Json& json, DeviceType& value) {
  if (json.is_string()) {
    for (std::uint32_t i = 0; i <= static_cast<std::uint32_t>(DeviceType::cpu); ++i) {
      value = static_cast<DeviceType>(i);
      if (json.get<std::string>() == device_type_name(value)) return nullptr;
    }
  }
  return "one of other, integrated, discrete, virtual, cpu";
}
const char* from_json(const Json& json, std::array<std::uint8_t, 16>& value) {
  static constexpr const char* kExpected = "32 hexadecimal digits";
  if (!json.is_string()) return kExpected;
  const std::string text = json.get<std::string>();
  if (text.size() != 32 || text.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) return kExpected;
  for (std::size_t i = 0; i < value.size(); ++i)
    value[i] = static_cast<std::uint8_t>(std::stoul(text.substr(i * 2, 2), nullptr, 16));
  return nullptr;
}
template <typename T, std::size_t N>
const char* from_json(const Json& json, std::array<T, N>& value) {
  if (!json.is_array() || json.size() != N) return "an array of 3 whole numbers";
  for (std::size_t i = 0; i < N; ++i) {
    if (from_json(json[i], value[i]) != nullptr) return "an array of 3 whole numbers";
  }
  return nullptr;
}
const char* from_json(const Json& json, CoopmatShape& s) {
  static constexpr const char* kExpected = "shapes [m, n, k, a_type, b_type, c_type, result_type, scope]";
  std::uint32_t* const fields[] = {&s.m, &s.n, &s.k, &s.a_type, &s.b_type, &s.c_type, &s.result_type, &s.scope};
  if (!json.is_array() || json.size() != std::size(fields)) return kExpected;
  for (std::size_t i = 0; i < std::size(fields); ++i) {
    if (from_json(json[i], *fields[i]) != nullptr) return kExpected;
  }
  return nullptr;
}
template <typename T>
bool member(const Json& json, const char* key, T& value) {
  return json.is_object() && json.contains(key) && from_json(json[key], value) == nullptr;
}
const char* from_json(const Json& json, MemoryHeap& heap) {
  const bool good = member(json, "size", heap.size) && member(json, "device_local", heap.device_local);
  return good ? nullptr : "heaps {\"size\", \"device_local\"}";
}
const char* from_json(const Json& json, MemoryType& type) {
  return member(json, "flags", type.flags) && member(json, "heap", type.heap) ? nullptr : "types {\"flags\", \"heap\"}";
}
const char* from_json(const Json& json, QueueFamily& family) {
  const bool good = member(json, "flags", family.flags) && member(json, "count", family.count) &&
                    member(json, "timestamp_bits", family.timestamp_bits);
  return good ? nullptr : "families {\"flags\", \"count\", \"timestamp_bits\"}";
}
template <typename T>
const char* from_json(const Json& json, std::vector<T>& values) {
  if (!json.is_array()) return "an array";
  values.clear();
  for (const Json& element : json) {
    T value{};
    if (const char* expected = from_json(element, value); expected != nullptr) return expected;
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

Result<Json> parse_object(std::string_view text) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object())
    return Status(StatusCode::invalid_argument, "the capabilities are not a JSON object");
  return json;
}

Status check_keys(const Json& json, const std::set<std::string, std::less<>>& known) {
  for (const auto& [key, value] : json.items()) {
    if (!known.contains(key))
      return {StatusCode::invalid_argument, "capability \"" + quoted_text(key) + "\" is not a key of the device snapshot"};
  }
  return {};
}

}  // namespace

std::string snapshot_to_json(const DeviceSnapshot& snapshot) {
  Json json = Json::object();
  visit_snapshot_fields(snapshot,
                        [&json](const char* key, const auto& field, NarrowRule) { json[key] = to_json(field); });
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

Result<DeviceSnapshot> snapshot_from_json(std::string_view text) {
  KVANT_ASSIGN(const Json json, parse_object(text));
  DeviceSnapshot snapshot;
  Status status;
  std::set<std::string, std::less<>> known;
  visit_snapshot_fields(snapshot, [&](const char* key, auto& field, NarrowRule) {
    known.insert(key);
    if (!status.ok() || !json.contains(key)) return;
    if (const char* expected = from_json(json[key], field); expected != nullptr) status = wrong_type(key, expected);
  });
  KVANT_TRY(status);
  KVANT_TRY(check_keys(json, known));
  return snapshot;
}

Status narrow_snapshot(DeviceSnapshot& snapshot, std::string_view override_json) {
  KVANT_ASSIGN(const Json json, parse_object(override_json));
  DeviceSnapshot narrowed = snapshot;
  Status status;
  std::set<std::string, std::less<>> known;
  visit_snapshot_fields(narrowed, [&](const char* key, auto& field, NarrowRule rule) {
    known.insert(key);
    if (!status.ok() || !json.contains(key)) return;
    auto wish = field;
    if (const char* expected = from_json(json[key], wish); expected != nullptr) {
      status = wrong_type(key, expected);
    } else if (!within_rule(field, wish, rule, narrowed)) {
      status = {StatusCode::invalid_argument, "capability \"" + std::string(key) + "\" (" + quoted_text(json[key].dump()) +
                                                  ") would widen or change the device's own (" + to_json(field).dump() +
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
