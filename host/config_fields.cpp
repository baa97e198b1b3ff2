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

template <auto... Path>
constexpr ConfigField row(std::string_view key, FieldType type, std::uint64_t least, std::uint64_t most,
                          std::string_view help) {
  ConfigField field;
  field.key = key;
  field.type = type;
  field.least = least;
  field.most = most;
  field.help = help;
  field.get = get<Path...>;
  field.set = set<Path...>;
  return field;
}
template <auto... Path>
constexpr ConfigField flag(std::string_view key, std::string_view help) {
  return row<Path...>(key, FieldType::boolean, 0, 1, help);
}
template <auto... Path>
constexpr ConfigField format_row(std::string_view key, FieldType type, std::string_view help) {
  return row<Path...>(key, type, 0, 0, help);
}
template <auto... Path>
constexpr ConfigField named(std::string_view key, std::vector<std::string_view> (*names)(), std::string_view help) {
  ConfigField field = row<Path...>(key, FieldType::name, 0, 0, help);
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
std::vector<std::string_view> policy_names() {
  std::vector<std::string_view> names;
  for (const PolicyKind kind : {PolicyKind::none, PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive})
    names.push_back(policy_name(kind));
  return names;
}

using enum FieldType;
using C = CacheConfig;
using P = PolicyConfig;
using T = TiersConfig;
using H = HybridConfig;
using M = MonitorConfig;

constexpr ConfigField kFields[] = {
    named<&C::preset>("preset", preset_names,
                      "Values that the other keys start from; empty: the defaults of this table."),
    row<&C::capacity_tokens>("capacity_tokens", count, 0, kMostTokens,
                             "Tokens that the pool holds, of all sequences and prefixes; 0: the engine's figure."),
    in_steps(row<&C::page_tokens>("page_tokens", count, 16, 32, "Tokens of a page, the unit of sharing and eviction."),
             16),
    row<&C::memory_limit_bytes>("memory_limit_bytes", bytes, 0, kMostBytes,
                                "Device memory that the cache never exceeds; 0: no limit but the capacity."),
    row<&C::preallocate_bytes>(
        "preallocate_bytes", bytes, 0, kMostBytes,
        "Slabs allocated at creation, at most the whole pool; 0: each as its pages are first used."),
    or_zero(row<&C::slab_bytes>("slab_bytes", bytes, 64ull << 10, 4ull << 30,
                                "Size that a slab of device memory aims at; 0: 256 MiB.")),
    format_row<&C::format_k>("format_k", FieldType::format,
                             "Format of the keys of all layers; empty: each layer's own."),
    format_row<&C::format_v>("format_v", FieldType::format,
                             "Format of the values of all layers; empty: each layer's own."),
    row<&C::window>("window", count, 0, kMostTokens,
                    "Tokens that a query sees in every layer; 0: each layer's own window."),
    row<&C::window_sinks>("window_sinks", count, 0, kMostTokens, "First tokens that stay visible outside the window."),
    flag<&C::prefix_cache>("prefix_cache",
                           "Keeps full pages of known tokens for later sequences that begin with them."),
    row<&C::model_id>("model_id", text, 0, 1024,
                      "What keys and values depend on besides tokens, layers and formats; part of every prefix key."),
    named<&C::policy, &P::kind>("policy.kind", policy_names,
                                "Which prefix leaves when room is needed; see policies.md."),
    row<&C::policy, &P::ttl_ms>("policy.ttl_ms", duration, 0, kMostMilliseconds,
                                "Prefixes that were not used for so long expire; 0: never."),
    row<&C::policy, &P::sink_pages>("policy.sink_pages", count, 0, kMostTokens / 16,
                                    "First pages of a prefix, which leave after all others; for the policy window."),
    row<&C::tiers, &T::host_bytes>("tiers.host_bytes", bytes, 0, kMostBytes,
                                   "Size of the tier in host memory; 0: no such tier."),
    row<&C::tiers, &T::disk_folder>("tiers.disk_folder", text, 0, 4096,
                                    "Folder of the disk tier; empty: no such tier."),
    row<&C::tiers, &T::disk_bytes>("tiers.disk_bytes", bytes, 0, kMostBytes,
                                   "Most bytes of the disk tier; 0: no limit."),
    row<&C::tiers, &T::remote_servers>(
        "tiers.remote_servers", servers, 0, 4096,
        "memcached servers of the remote tier, the port 11211 if absent; empty: no such tier."),
    row<&C::tiers, &T::remote_timeout_ms>("tiers.remote_timeout_ms", duration, 1, 60'000,
                                          "After so long a server that does not answer is a miss."),
    format_row<&C::tiers, &T::format>("tiers.format", format_pair,
                                      "Formats in which tiers keep entries; empty: as they are."),
    row<&C::tiers, &T::min_tokens>("tiers.min_tokens", count, 0, kMostTokens,
                                   "Shorter runs of tokens are computed anew instead of loaded from a tier."),
    row<&C::tiers, &T::store_after_uses>("tiers.store_after_uses", count, 0, kMostUses,
                                         "A page goes to the tiers only after so many sequences began with it."),
    flag<&C::tiers, &T::compare_recompute>(
        "tiers.compare_recompute", "Loads nothing that would be computed sooner, by the rates measured so far."),
    row<&C::tiers, &T::queue_bytes>(
        "tiers.queue_bytes", bytes, 1ull << 20, kMostBytes,
        "What may wait to be stored; beyond it entries are dropped, so that nobody waits for a disk."),
    format_row<&C::hybrid, &H::hot_format>("hybrid.hot_format", format_pair,
                                           "Formats of prefixes in frequent use; empty: no hybrid."),
    format_row<&C::hybrid, &H::cold_format>("hybrid.cold_format", format_pair,
                                            "Formats of all other prefixes; empty: no hybrid."),
    row<&C::hybrid, &H::promote_uses>("hybrid.promote_uses", count, 1, kMostUses,
                                      "A cold prefix used so often becomes a hot one."),
    row<&C::monitor, &M::history>("monitor.history", count, 16, 1024,
                                  "Intervals that the monitor keeps; when they are full, old ones are merged."),
    or_zero(row<&C::monitor, &M::interval_ms>("monitor.interval_ms", duration, 100, 86'400'000,
                                              "Time between two observations; 0: only when asked.")),
    row<&C::events>("events", count, 0, 1u << 20, "Latest events held for those that poll them; 0: none."),
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
