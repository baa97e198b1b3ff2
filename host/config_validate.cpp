// Rules between keys. Each sentence names both keys, so that either can be changed.
#include "config_fields.hpp"

namespace kvant {
namespace {

Status invalid(std::string message) { return {StatusCode::invalid_argument, std::move(message)}; }
std::string with(std::string_view key, std::uint64_t value) {
  return std::string(key) + " (" + std::to_string(value) + ")";
}

Status check_memory(const CacheConfig& config) {
  const std::uint64_t limit = config.memory_limit_bytes;
  if (limit == 0) return {};
  if (config.preallocate_bytes > limit)
    return invalid(with("preallocate_bytes", config.preallocate_bytes) + " is greater than " +
                   with("memory_limit_bytes", limit));
  if (config.slab_bytes > limit)
    return invalid(with("slab_bytes", config.slab_bytes) + " is greater than " + with("memory_limit_bytes", limit));
  return {};
}

Status check_windows(const CacheConfig& config) {
  if (config.window_sinks != 0 && config.window == 0)
    return invalid(with("window_sinks", config.window_sinks) + " needs a window; window is 0");
  const bool window_policy = config.policy.kind == PolicyKind::window;
  if (config.policy.sink_pages != 0 && !window_policy)
    return invalid(with("policy.sink_pages", config.policy.sink_pages) + " needs policy.kind window; it is " +
                   std::string(policy_name(config.policy.kind)));
  if (config.policy.kind == PolicyKind::adaptive && config.capacity_tokens == 0)
    return invalid("policy.kind (adaptive) needs capacity_tokens, which size its queues; capacity_tokens is 0");
  return {};
}

Status check_tiers(const CacheConfig& config) {
  const TiersConfig& tiers = config.tiers;
  if (tiers.disk_bytes != 0 && tiers.disk_folder.empty()) {
    // A preset may bring a size that waits for a folder.
    const Result<CacheConfig> preset = config_preset(config.preset);
    if (!preset.ok() || preset->tiers.disk_bytes != tiers.disk_bytes)
      return invalid(with("tiers.disk_bytes", tiers.disk_bytes) + " needs tiers.disk_folder, which is empty");
  }
  if (config.prefix_cache) return {};
  if (tiers.host_bytes != 0)
    return invalid(with("tiers.host_bytes", tiers.host_bytes) +
                   " needs prefix_cache, which is false: tiers hold its pages");
  if (!tiers.disk_folder.empty())
    return invalid("tiers.disk_folder (" + shown_text(tiers.disk_folder) +
                   ") needs prefix_cache, which is false: tiers hold its pages");
  if (!tiers.remote_servers.empty())
    return invalid("tiers.remote_servers (" + shown_text(tiers.remote_servers) +
                   ") needs prefix_cache, which is false: tiers hold its pages");
  return {};
}

Status check_hybrid(const CacheConfig& config) {
  const std::string &hot = config.hybrid.hot_format, &cold = config.hybrid.cold_format;
  if (hot.empty() && cold.empty()) return {};
  if (hot.empty()) return invalid("hybrid.cold_format (" + cold + ") needs hybrid.hot_format, which is empty");
  if (cold.empty()) return invalid("hybrid.hot_format (" + hot + ") needs hybrid.cold_format, which is empty");
  if (format_pair_from_text(hot) == format_pair_from_text(cold))
    return invalid("hybrid.cold_format (" + cold + ") is the same as hybrid.hot_format (" + hot +
                   "); expected another one");
  return {};
}

Status check_accuracy(const CacheConfig& config) {
  const AccuracyConfig& accuracy = config.accuracy;
  if (!accuracy.protect.empty() && accuracy.protect_first == 0 && accuracy.protect_newest == 0)
    return invalid("accuracy.protect (" + accuracy.protect + ") needs accuracy.protect_first or accuracy.protect_newest; both are 0");
  return {};
}

}  // namespace

Status validate_config(const CacheConfig& config) {
  for (const ConfigField& field : config_fields()) KVANT_TRY(check_value(field, field.get(config)));
  KVANT_TRY(check_memory(config));
  KVANT_TRY(check_windows(config));
  KVANT_TRY(check_tiers(config));
  KVANT_TRY(check_hybrid(config));
  return check_accuracy(config);
}

}  // namespace kvant
