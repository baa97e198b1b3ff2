// The tier functions of the manager extension.
#include "boundary.hpp"
#include "checks.hpp"
#include "manager_api.hpp"
#include "objects.hpp"
#include "prefix_args.hpp"
#include "tier_watch.hpp"

namespace kvant::abi {
namespace {

constexpr std::uint32_t kMaxTiers = 16;
constexpr std::uint32_t kDefaultTimeoutMs = 200, kMaxTimeoutMs = 60000;

Result<CustomTierFunctions> read_functions(const kvant_tier_functions* in, const std::string& name) {
  kvant_tier_functions values{};
  KVANT_TRY(read_args(in, name, values));
  if (values.put == nullptr) return invalid(name, ".put is NULL; expected a function");
  if (values.get == nullptr) return invalid(name, ".get is NULL; expected a function");
  CustomTierFunctions functions;
  functions.user_data = values.user_data;
  functions.name = values.name;
  functions.put = values.put;
  functions.get = values.get;
  functions.contains = values.contains;
  functions.erase = values.erase;
  functions.clear = values.clear;
  return functions;
}

Result<std::unique_ptr<Tier>> read_tier(const kvant_tier_args* in, const std::string& name, const CallLock& lock) {
  kvant_tier_args values{};
  KVANT_TRY(read_args(in, name, values));
  if (values.kind < KVANT_TIER_HOST || values.kind > KVANT_TIER_CUSTOM)
    return invalid(name, ".kind (", values.kind, ") is not one of KVANT_TIER_*, ", KVANT_TIER_HOST, " to ", KVANT_TIER_CUSTOM);
  const bool located = values.kind == KVANT_TIER_DISK || values.kind == KVANT_TIER_REMOTE;
  if (located) KVANT_TRY(check_pointer(values.location, name + ".location", "a folder or servers"));
  if (!located && values.location != nullptr) return invalid(name, ".location is given to a tier that has none");
  if (values.kind != KVANT_TIER_REMOTE && values.timeout_ms != 0)
    return invalid(name, ".timeout_ms (", values.timeout_ms, ") is not 0 although the tier is not KVANT_TIER_REMOTE");
  if (values.timeout_ms > kMaxTimeoutMs) return invalid(name, ".timeout_ms (", values.timeout_ms, ") is greater than ", kMaxTimeoutMs);
  if (values.kind != KVANT_TIER_CUSTOM && values.functions != nullptr)
    return invalid(name, ".functions are given although the tier is not KVANT_TIER_CUSTOM");
  if (values.kind != KVANT_TIER_HOST && values.kind != KVANT_TIER_DISK && values.capacity_bytes != 0)
    return invalid(name, ".capacity_bytes (", values.capacity_bytes, ") is not 0 although the tier keeps its own limit");
  switch (values.kind) {
    case KVANT_TIER_HOST:
      if (values.capacity_bytes == 0) return invalid(name, ".capacity_bytes (0) is not at least 1");
      return make_memory_tier(values.capacity_bytes);
    case KVANT_TIER_DISK:
      return make_disk_tier({values.location, values.capacity_bytes});
    case KVANT_TIER_REMOTE: {
      RemoteTierSpec spec;
      spec.servers = values.location;
      spec.timeout_ms = values.timeout_ms != 0 ? values.timeout_ms : kDefaultTimeoutMs;
      return make_remote_tier(spec);
    }
    default: {
      KVANT_ASSIGN(const CustomTierFunctions functions, read_functions(values.functions, name + ".functions"));
      return watch_tier(make_custom_tier(functions), lock);
    }
  }
}

Status read_format(const char* in, const char* name, std::optional<FormatId>& format) {
  if (in == nullptr) return {};
  format = format_by_name(in);
  if (!format) return invalid("args.", name, " (\"", in, "\") is not the name of a format");
  return {};
}

Status check_prefixes(const CacheObject& cache) {
  if (!cache.cache->spec().prefix_cache)
    return precondition("the cache was created without KVANT_CACHE_PREFIXES; it has nothing that could go to tiers");
  return {};
}

}  // namespace

kvant_error* tiers_set(kvant_cache* cache, const kvant_tiers_args* args) {
  return guard("tiers_set", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_prefixes(*object));
    kvant_tiers_args values{};
    KVANT_TRY(read_args(args, "args", values));
    if (values.tier_count > kMaxTiers) return invalid("args.tier_count (", values.tier_count, ") is greater than ", kMaxTiers);
    if ((values.flags & ~KVANT_TIERS_ALWAYS_LOAD) != 0)
      return invalid("args.flags (", hex(values.flags), ") have bits beyond ", hex(KVANT_TIERS_ALWAYS_LOAD));
    TierOptions options;
    KVANT_TRY(read_format(values.format_k, "format_k", options.formats.k));
    KVANT_TRY(read_format(values.format_v, "format_v", options.formats.v));
    options.store_after_uses = values.store_after_uses;
    options.min_tokens = values.min_tokens;
    options.compare_recompute = (values.flags & KVANT_TIERS_ALWAYS_LOAD) == 0;
    if (values.queue_bytes != 0) options.queue_bytes = values.queue_bytes;
    std::vector<std::unique_ptr<Tier>> tiers;
    if (values.tier_count != 0) {
      KVANT_TRY(check_pointer(values.tiers, "args.tiers", text(values.tier_count, " kvant_tier_args")));
      KVANT_ASSIGN(const std::size_t stride, element_stride(values.tiers, values.tier_stride, "args.tiers", "args.tier_stride"));
      for (std::uint32_t i = 0; i < values.tier_count; ++i) {
        KVANT_ASSIGN(std::unique_ptr<Tier> tier, read_tier(element_at(values.tiers, stride, i), text("args.tiers[", i, "]"),
                                                              object->device->lock));
        tiers.push_back(std::move(tier));
      }
    }
    return object->cache->set_tiers(std::move(tiers), options);
  });
}

kvant_error* tiers_store(kvant_cache* cache) {
  return guard("tiers_store", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_prefixes(*object));
    return object->cache->store_prefixes();
  });
}

kvant_error* tiers_prefetch(kvant_cache* cache, const kvant_sequence_args* args) {
  return guard("tiers_prefetch", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_prefixes(*object));
    KVANT_ASSIGN(const SequenceSpec spec, read_sequence_args(args));
    return object->cache->prefetch_prefix(spec);
  });
}

kvant_error* tiers_clear(kvant_cache* cache, std::uint32_t tier) {
  return guard("tiers_clear", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_prefixes(*object));
    return object->cache->clear_tiers(tier == KVANT_TIERS_ALL ? std::nullopt : std::optional<std::size_t>(tier));
  });
}

kvant_error* tiers_wait(kvant_cache* cache) {
  return guard("tiers_wait", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_prefixes(*object));
    return object->cache->drain_tiers();
  });
}

}  // namespace kvant::abi
