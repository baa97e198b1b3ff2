#include "config_apply.hpp"

namespace kvant {
namespace {

void set_formats(std::vector<LayerSpec>& layers, const FormatPair& formats) {
  for (LayerSpec& layer : layers) {
    layer.format_k = formats.k;
    layer.format_v = formats.v;
  }
}

bool names(std::string_view sides, char side) { return sides.find(side) != std::string_view::npos; }

void set_accuracy(const AccuracyConfig& accuracy, CacheSpec& spec) {
  for (LayerSpec& layer : spec.layers) {
    if (!accuracy.centre.empty()) {
      layer.centre_k = names(accuracy.centre, 'k');
      layer.centre_v = names(accuracy.centre, 'v');
      if (!layer.centre_k) layer.means_k.clear();
      if (!layer.centre_v) layer.means_v.clear();
    }
    if (!accuracy.rotate.empty()) {
      layer.rotate_k = names(accuracy.rotate, 'k');
      layer.rotate_v = names(accuracy.rotate, 'v');
    }
  }
  if (accuracy.protect.empty()) return;
  spec.protection.first_tokens = accuracy.protect_first;
  spec.protection.newest_tokens = accuracy.protect_newest;
  spec.protection.k = names(accuracy.protect, 'k');
  spec.protection.v = names(accuracy.protect, 'v');
}

}  // namespace

Status apply_config(const CacheConfig& config, CacheSpec& spec) {
  KVANT_TRY(validate_config(config));
  if (config.capacity_tokens != 0) spec.capacity_tokens = config.capacity_tokens;
  spec.page_tokens = config.page_tokens;
  if (config.slab_bytes != 0) spec.slab_bytes = config.slab_bytes;
  spec.preallocate_bytes = config.preallocate_bytes;
  spec.events = config.events;
  for (LayerSpec& layer : spec.layers) {
    if (!config.format_k.empty()) layer.format_k = *format_by_name(config.format_k);
    if (!config.format_v.empty()) layer.format_v = *format_by_name(config.format_v);
    if (config.window == 0) continue;
    layer.window = config.window;
    layer.window_sinks = config.window_sinks;
  }
  if (!config.hybrid.hot_format.empty()) set_formats(spec.layers, *format_pair_from_text(config.hybrid.hot_format));
  set_accuracy(config.accuracy, spec);
  spec.prefix_cache = config.prefix_cache;
  spec.attention_mass = config.attention_mass;
  if (!config.model_id.empty()) spec.model_id = config.model_id;
  spec.policy.kind = config.policy.kind;
  spec.policy.ttl_ms = config.policy.ttl_ms;
  spec.policy.sink_entries = config.policy.sink_pages;
  if (spec.external_pages && spec.prefix_cache)
    return {StatusCode::invalid_argument, "prefix_cache is true, but the engine keeps the pages of this cache"};
  if (spec.external_pages && spec.attention_mass)
    return {StatusCode::invalid_argument, "attention_mass is true, but the engine keeps the pages of this cache"};
  if (spec.external_pages && !config.accuracy.protect.empty())
    return {StatusCode::invalid_argument, "accuracy.protect is \"" + config.accuracy.protect + "\", but the engine keeps the pages of this cache"};
  return {};
}

CacheSpec cold_spec(const CacheConfig& config, const CacheSpec& hot) {
  CacheSpec cold = hot;
  set_formats(cold.layers, *format_pair_from_text(config.hybrid.cold_format));
  cold.preallocate_bytes = 0;
  cold.attention_mass = false;  // nobody attends there
  cold.protection = {};
  return cold;
}

Result<std::vector<std::unique_ptr<Tier>>> make_tiers(const TiersConfig& config) {
  std::vector<std::unique_ptr<Tier>> tiers;
  if (config.host_bytes != 0) tiers.push_back(make_memory_tier(config.host_bytes));
  if (!config.disk_folder.empty()) {
    KVANT_ASSIGN(std::unique_ptr<Tier> disk, make_disk_tier({config.disk_folder, config.disk_bytes}));
    tiers.push_back(std::move(disk));
  }
  if (!config.remote_servers.empty()) {
    RemoteTierSpec spec;
    spec.servers = config.remote_servers;
    spec.timeout_ms = config.remote_timeout_ms;
    KVANT_ASSIGN(std::unique_ptr<Tier> remote, make_remote_tier(spec));
    tiers.push_back(std::move(remote));
  }
  return tiers;
}

TierOptions tier_options(const TiersConfig& config) {
  TierOptions options;
  if (!config.format.empty()) {
    const FormatPair formats = *format_pair_from_text(config.format);
    options.formats = {formats.k, formats.v};
  }
  options.store_after_uses = config.store_after_uses;
  options.min_tokens = config.min_tokens;
  options.compare_recompute = config.compare_recompute;
  options.queue_bytes = config.queue_bytes;
  return options;
}

}  // namespace kvant
