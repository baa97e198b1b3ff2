#include "config_args.hpp"

#include <span>
#include <type_traits>

#include "boundary.hpp"
#include "config_fields.hpp"

namespace kvant::abi {
namespace {

using Keep = std::function<const char*(const std::string&)>;

template <auto... Path>
ConfigValue get(const kvant_config& config) {
  const auto& member = (config.*....*Path);
  if constexpr (std::is_same_v<std::remove_cvref_t<decltype(member)>, const char*>)
    return std::string(member == nullptr ? "" : member);
  else
    return std::uint64_t{member};
}

// Values come from a valid configuration, whose ranges the members hold: CacheConfig's have the same types.
template <auto... Path>
void set(kvant_config& config, const ConfigValue& value, const Keep& keep) {
  auto& member = (config.*....*Path);
  using T = std::remove_cvref_t<decltype(member)>;
  if constexpr (std::is_same_v<T, const char*>) {
    member = keep(std::get<std::string>(value));
  } else {
    const bool* flag = std::get_if<bool>(&value);
    member = static_cast<T>(flag != nullptr ? std::uint64_t{*flag} : std::get<std::uint64_t>(value));
  }
}

struct Member {
  ConfigValue (*get)(const kvant_config&);
  void (*set)(kvant_config&, const ConfigValue&, const Keep&);
};
template <auto... Path>
constexpr Member kMember = {get<Path...>, set<Path...>};

// In the order of config_fields(). A key that the struct does not have does not compile.
#define KVANT_CONFIG_KEY(member, facts) kMember<&kvant_config::member>,
#define KVANT_CONFIG_SECTION_KEY(section, member, facts) \
  kMember<&kvant_config::section, &decltype(kvant_config::section)::member>,
constexpr Member kMembers[] = {
#include "config_fields.def"
};

// Numbers must not be cut on their way.
template <typename Public, typename Own>
constexpr bool kWideEnough = std::is_same_v<Public, const char*> || sizeof(Public) >= sizeof(Own);
#define KVANT_CONFIG_KEY(member, facts) \
  static_assert(kWideEnough<decltype(kvant_config::member), decltype(CacheConfig::member)>, #member);
#define KVANT_CONFIG_SECTION_KEY(section, member, facts)                                  \
  static_assert(kWideEnough<decltype(decltype(kvant_config::section)::member),            \
                            decltype(decltype(CacheConfig::section)::member)>, #section "." #member);
#include "config_fields.def"

constexpr std::size_t kReservedBytes = sizeof(kvant_config_policy::reserved0) + sizeof(kvant_config_policy::reserved) +
                                       sizeof(kvant_config_tiers::reserved0) + sizeof(kvant_config_tiers::reserved) +
                                       sizeof(kvant_config_hybrid::reserved0) + sizeof(kvant_config_hybrid::reserved) +
                                       sizeof(kvant_config_monitor::reserved0) + sizeof(kvant_config_monitor::reserved) +
                                       sizeof(kvant_config_accuracy::reserved);
#define KVANT_CONFIG_KEY(member, facts) +sizeof(kvant_config::member)
#define KVANT_CONFIG_SECTION_KEY(section, member, facts) +sizeof(decltype(kvant_config::section)::member)
constexpr std::size_t kKeyBytes = 0
#include "config_fields.def"
    ;
static_assert(kHeaderBytes + kKeyBytes + kReservedBytes == sizeof(kvant_config), "a member of kvant_config is no key");

Status check_zero(std::string_view name, std::string_view member, std::span<const std::uint64_t> words) {
  for (const std::uint64_t word : words)
    if (word != 0) return invalid(name, ".", member, " (", word, ") is not 0");
  return {};
}

Status check_reserved(const kvant_config& values, std::string_view name) {
  KVANT_TRY(check_zero(name, "policy.reserved0", {{values.policy.reserved0}}));
  KVANT_TRY(check_zero(name, "policy.reserved", values.policy.reserved));
  KVANT_TRY(check_zero(name, "tiers.reserved0", {{values.tiers.reserved0}}));
  KVANT_TRY(check_zero(name, "tiers.reserved", values.tiers.reserved));
  KVANT_TRY(check_zero(name, "hybrid.reserved0", {{values.hybrid.reserved0}}));
  KVANT_TRY(check_zero(name, "hybrid.reserved", values.hybrid.reserved));
  KVANT_TRY(check_zero(name, "monitor.reserved0", {{values.monitor.reserved0}}));
  KVANT_TRY(check_zero(name, "monitor.reserved", values.monitor.reserved));
  return check_zero(name, "accuracy.reserved", values.accuracy.reserved);
}

bool nothing(const ConfigValue& value) {
  const auto* number = std::get_if<std::uint64_t>(&value);
  return number != nullptr ? *number == 0 : std::get<std::string>(value).empty();
}

}  // namespace

Result<CacheConfig> read_config(const kvant_config* in, std::string_view name, const CacheConfig& base) {
  kvant_config values{};
  KVANT_TRY(read_args(in, name, values));
  KVANT_TRY(check_reserved(values, name));
  CacheConfig config;
  for (std::size_t i = 0; i < std::size(kMembers); ++i) {
    const ConfigField& field = config_fields()[i];
    ConfigValue value = kMembers[i].get(values);
    if (field.type == FieldType::boolean) {
      const std::uint64_t number = std::get<std::uint64_t>(value);
      if (number > 1) return invalid(field.key, " (", number, ") is not 0 or 1");
      value = number == 1;
    } else if (const Status status = check_value(field, value); !status.ok()) {
      if (nothing(value)) continue;
      return status;
    }
    field.set(config, value);
  }
  if (config.capacity_tokens == 0) config.capacity_tokens = base.capacity_tokens;
  if (config.model_id.empty()) config.model_id = base.model_id;
  KVANT_TRY(validate_config(config));
  return config;
}

kvant_config config_values(const CacheConfig& config, const Keep& keep) {
  kvant_config values{};
  values.struct_size = sizeof values;
  for (std::size_t i = 0; i < std::size(kMembers); ++i) kMembers[i].set(values, config_fields()[i].get(config), keep);
  return values;
}

}  // namespace kvant::abi
