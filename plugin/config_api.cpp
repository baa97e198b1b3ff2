// cache_configure and config_text of the manager extension.
#include "boundary.hpp"
#include "cache_args.hpp"
#include "checks.hpp"
#include "config_apply.hpp"
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
    // What the two say together is checked as one.
    if (values.capacity_tokens == 0) values.capacity_tokens = config.capacity_tokens;
    if (config.prefix_cache) values.flags |= KVANT_CACHE_PREFIXES;
    values.struct_size = sizeof values;
    KVANT_ASSIGN(CacheSpec spec, read_cache_args(&values));
    KVANT_TRY(apply_config(config, spec));
    auto cache = std::make_shared<CacheObject>(object.object());
    spec.first_sequence = cache->mark + 1;
    KVANT_ASSIGN(cache->cache, Cache::create(object->executor(), spec, object->context->log));
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
    KVANT_ASSIGN(*out_cache, add(cache));
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
