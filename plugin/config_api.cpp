// The configuration functions of the manager extension: caches made of JSON or of the struct, and the one turned into the other.
#include "boundary.hpp"
#include "cache_args.hpp"
#include "checks.hpp"
#include "config_apply.hpp"
#include "config_args.hpp"
#include "manager_api.hpp"
#include "memory_planner.hpp"
#include "objects.hpp"
#include "prefix_args.hpp"

namespace kvant::abi {
namespace {

// What the arguments say of the configuration's matters: it stands where the JSON says nothing.
Result<CacheConfig> config_of(const kvant_cache_args& values) {
  CacheConfig config;
  config.capacity_tokens = values.capacity_tokens;
  if (values.page_tokens != 0) config.page_tokens = values.page_tokens;
  config.prefix_cache = (values.flags & KVANT_CACHE_PREFIXES) != 0;
  config.attention_mass = (values.flags & KVANT_CACHE_MASS) != 0;
  if (values.model_id != nullptr) config.model_id = values.model_id;
  if (values.policy != nullptr) {
    KVANT_ASSIGN(const PolicySpec policy, read_policy(values.policy, "args.policy"));
    config.policy = {policy.kind, policy.ttl_ms, policy.sink_entries};
  }
  return config;
}

Status open_hybrid(const CacheConfig& config, CacheObject& cache) {
  auto cold = std::make_shared<CacheObject>(cache.device);
  CacheSpec spec = cold_spec(config, cache.cache->spec());
  spec.first_sequence = cold->mark + 1;
  KVANT_ASSIGN(cold->cache, Cache::create(cache.device->executor(), spec, cache.device->context->log));
  StoreSpec store;
  store.hot = cache.cache.get();
  store.cold = cold->cache.get();
  store.policy = spec.policy;
  store.promote_uses = config.hybrid.promote_uses;
  KVANT_ASSIGN(cache.store, TensorStore::create(cache.device->executor(), store));
  cache.cold = std::move(cold);
  return {};
}

// A cache of what the arguments and the configuration say together, which is checked as one.
Result<std::shared_ptr<CacheObject>> make_cache(const std::shared_ptr<DeviceObject>& device, kvant_cache_args values,
                                                CacheConfig config) {
  if (values.capacity_tokens == 0) values.capacity_tokens = config.capacity_tokens;
  if (config.prefix_cache) values.flags |= KVANT_CACHE_PREFIXES;
  values.struct_size = sizeof values;
  KVANT_ASSIGN(CacheSpec spec, read_cache_args(&values));
  KVANT_TRY(apply_config(config, spec));
  auto cache = std::make_shared<CacheObject>(device);
  spec.first_sequence = cache->mark + 1;
  KVANT_ASSIGN(cache->cache, Cache::create(device->executor(), spec, device->context->log));
  if (spec.prefix_cache) {
    KVANT_ASSIGN(std::vector<std::unique_ptr<Tier>> tiers, make_tiers(config.tiers));
    KVANT_TRY(cache->cache->set_tiers(std::move(tiers), tier_options(config.tiers)));
  }
  if (config.memory_limit_bytes != 0) KVANT_TRY(cache->cache->set_memory_limit(config.memory_limit_bytes, {}));
  if (!config.hybrid.hot_format.empty()) KVANT_TRY(open_hybrid(config, *cache));
  MonitorOptions monitor;
  monitor.capacity = config.monitor.history;
  cache->monitor = Monitor(monitor);
  cache->observe_interval_ms = config.monitor.interval_ms;
  cache->config = std::move(config);
  return cache;
}

void write_config(const CacheConfig& config, ContextObject& context, kvant_config* out) {
  write_struct(out, config_values(config, [&](const std::string& text) { return context.keep_text(text); }));
}

}  // namespace

kvant_error* cache_configure(kvant_device* device, const kvant_cache_args* args, const char* json, kvant_cache** out_cache) {
  return guard("cache_configure", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_TRY(check_pointer(json, "json", "a configuration, \"{}\" for the defaults"));
    KVANT_TRY(check_pointer(out_cache, "out_cache", "a place for the cache"));
    kvant_cache_args values{};
    KVANT_TRY(read_args(args, "args", values));
    KVANT_ASSIGN(const CacheConfig base, config_of(values));
    KVANT_ASSIGN(CacheConfig config, config_from_json(json, base));
    KVANT_ASSIGN(const auto cache, make_cache(object.object(), values, std::move(config)));
    KVANT_ASSIGN(*out_cache, add(cache));
    return {};
  });
}

kvant_error* config_apply(kvant_device* device, const kvant_cache_args* args, const kvant_config* config,
                          kvant_cache** out_cache) {
  return guard("config_apply", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_TRY(check_pointer(out_cache, "out_cache", "a place for the cache"));
    kvant_cache_args values{};
    KVANT_TRY(read_args(args, "args", values));
    KVANT_ASSIGN(const CacheConfig base, config_of(values));
    KVANT_ASSIGN(CacheConfig choices, read_config(config, "config", base));
    KVANT_ASSIGN(const auto cache, make_cache(object.object(), values, std::move(choices)));
    KVANT_ASSIGN(*out_cache, add(cache));
    return {};
  });
}

kvant_error* config_default(kvant_context* context, const char* preset, kvant_config* out_config) {
  return guard("config_default", [&]() -> Status {
    KVANT_ASSIGN(const auto object, find<ContextObject>(context, "context"));
    KVANT_TRY(check_output(out_config, "out_config"));
    KVANT_ASSIGN(const CacheConfig config, config_preset(preset == nullptr ? "" : preset));
    write_config(config, *object, out_config);
    return {};
  });
}

kvant_error* config_parse(kvant_context* context, const char* json, kvant_config* out_config) {
  return guard("config_parse", [&]() -> Status {
    KVANT_ASSIGN(const auto object, find<ContextObject>(context, "context"));
    KVANT_TRY(check_pointer(json, "json", "a configuration, \"{}\" for the defaults"));
    KVANT_TRY(check_output(out_config, "out_config"));
    KVANT_ASSIGN(const CacheConfig config, config_from_json(json));
    write_config(config, *object, out_config);
    return {};
  });
}

kvant_error* config_write(kvant_context* context, const kvant_config* config, const char** out_json) {
  return guard("config_write", [&]() -> Status {
    KVANT_ASSIGN(const auto object, find<ContextObject>(context, "context"));
    KVANT_TRY(check_pointer(out_json, "out_json", "a place for the text"));
    KVANT_ASSIGN(const CacheConfig choices, read_config(config, "config"));
    *out_json = object->keep_text(config_to_json(choices));
    return {};
  });
}

kvant_error* config_text(kvant_cache* cache, const char** out_json) {
  return guard("config_text", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_json, "out_json", "a place for the text"));
    if (!object->config) return precondition("the cache was created by cache_create, without a configuration");
    object->config_text = config_to_json(*object->config);
    *out_json = object->config_text.c_str();
    return {};
  });
}

}  // namespace kvant::abi
