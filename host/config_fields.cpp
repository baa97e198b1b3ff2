#include "config_fields.hpp"

#include <algorithm>
#include <cassert>
#include <limits>
#include <type_traits>

namespace kvant {
namespace {

// Numbers up to here survive every JSON reader, those with doubles too.
constexpr std::uint64_t kMostBytes = 1ull << 53;
constexpr std::uint64_t kMostTokens = 0x7FFFFFFF - 32;             // token slots are 32-bit signed in the kernels
constexpr std::uint64_t kMostMilliseconds = 3650ull * 86'400'000;  // ten years: beyond that it is a slip of the pen
constexpr std::uint64_t kMostUses = 1'000'000;
constexpr std::uint64_t kMostProtected = 65536;  // as in kvant_cache_args

template <auto... Path>
ConfigValue get(const CacheConfig& config) {
  const auto& member = (config.*....*Path);
  using T = std::remove_cvref_t<decltype(member)>;
  if constexpr (std::is_same_v<T, PolicyKind>)
    return std::string(policy_name(member));
  else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>)
    return member;
  else
    return std::uint64_t{member};
}

template <auto... Path>
void set(CacheConfig& config, const ConfigValue& value) {
  auto& member = (config.*....*Path);
  using T = std::remove_cvref_t<decltype(member)>;
  if constexpr (std::is_same_v<T, PolicyKind>) {
    const std::optional<PolicyKind> kind = policy_from_name(std::get<std::string>(value));
    assert(kind.has_value());
    member = *kind;
  } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
    member = std::get<T>(value);
  } else {
    assert(std::get<std::uint64_t>(value) <= std::numeric_limits<T>::max());
    member = static_cast<T>(std::get<std::uint64_t>(value));
  }
}

// What a row of config_fields.def says of its key; in_member adds the key itself.
constexpr ConfigField row(FieldType type, std::uint64_t least, std::uint64_t most, std::string_view help) {
  ConfigField field;
  field.type = type;
  field.least = least;
  field.most = most;
  field.help = help;
  return field;
}
constexpr ConfigField flag(std::string_view help) { return row(FieldType::boolean, 0, 1, help); }
constexpr ConfigField format_row(FieldType type, std::string_view help) { return row(type, 0, 0, help); }
constexpr ConfigField named(std::vector<std::string_view> (*names)(), std::string_view help) {
  ConfigField field = row(FieldType::name, 0, 0, help);
  field.names = names;
  return field;
}
constexpr ConfigField or_zero(ConfigField field) {
  field.zero = true;
  return field;
}
constexpr ConfigField in_steps(ConfigField field, std::uint64_t step) {
  field.step = step;
  return field;
}

std::vector<std::string_view> preset_names() {
  const std::span<const std::string_view> presets = config_preset_names();
  std::vector<std::string_view> names(presets.begin(), presets.end());
  names.emplace_back();
  return names;
}
std::vector<std::string_view> side_names() { return {"k", "v", "kv", ""}; }
std::vector<std::string_view> policy_names() {
  std::vector<std::string_view> names;
  for (const PolicyKind kind : {PolicyKind::none, PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive})
    names.push_back(policy_name(kind));
  return names;
}

using enum FieldType;

template <auto... Path>
constexpr ConfigField in_member(std::string_view key, ConfigField field) {
  field.key = key;
  field.get = get<Path...>;
  field.set = set<Path...>;
  return field;
}

#define KVANT_CONFIG_KEY(member, facts) in_member<&CacheConfig::member>(#member, facts),
#define KVANT_CONFIG_SECTION_KEY(section, member, facts) \
  in_member<&CacheConfig::section, &decltype(CacheConfig::section)::member>(#section "." #member, facts),
constexpr ConfigField kFields[] = {
#include "config_fields.def"
};

// Letters more, less or other that turn one text into the other.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j)
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1] ? 1u : 0u)});
    std::swap(above, row);
  }
  return above[b.size()];
}

std::string_view name_of(std::string_view key) { return key.substr(key.rfind('.') + 1); }

}  // namespace

std::span<const ConfigField> config_fields() { return kFields; }

const ConfigField* config_field(std::string_view key) {
  for (const ConfigField& field : kFields)
    if (field.key == key) return &field;
  return nullptr;
}

bool config_section(std::string_view name) {
  for (const ConfigField& field : kFields)
    if (field.key.size() > name.size() && field.key.starts_with(name) && field.key[name.size()] == '.' && !name.empty())
      return true;
  return false;
}

std::string_view nearest_config_key(std::string_view key) {
  std::string_view nearest;
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (const ConfigField& field : kFields) {
    // The right name in the wrong section counts as one edit.
    const std::size_t distance = std::min(edits(key, field.key), edits(name_of(key), name_of(field.key)) + 1);
    if (distance < least) {
      least = distance;
      nearest = field.key;
    }
  }
  return nearest;
}

}  // namespace kvant
