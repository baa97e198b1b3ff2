// sequence_open and the functions of the prefix cache.
#include "api.hpp"
#include "boundary.hpp"
#include "checks.hpp"
#include "objects.hpp"
#include "prefix_args.hpp"

namespace kvant::abi {
namespace {

Status check_prefixes_kept(const CacheObject& cache) {
  if (!cache.cache->spec().prefix_cache)
    return precondition("the cache was created without KVANT_CACHE_PREFIXES; it has no prefix cache");
  return {};
}

}  // namespace

kvant_error* sequence_open(kvant_cache* cache, const kvant_sequence_args* args, kvant_sequence* out_sequence,
                           std::uint64_t* out_reused_tokens) {
  return guard("sequence_open", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_sequence, "out_sequence", "a place for the sequence"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceSpec spec, read_sequence_args(args));
    KVANT_ASSIGN(const SequenceStart start, object->cache->create_sequence(spec));
    *out_sequence = static_cast<kvant_sequence>(start.sequence);
    if (out_reused_tokens != nullptr) *out_reused_tokens = start.reused_tokens;
    return {};
  });
}

kvant_error* prefix_find(kvant_cache* cache, const kvant_sequence_args* args, std::uint64_t* out_tokens) {
  return guard("prefix_find", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_tokens, "out_tokens", "a place for the number of tokens"));
    KVANT_TRY(check_prefixes_kept(*object));
    KVANT_ASSIGN(const SequenceSpec spec, read_sequence_args(args));
    KVANT_ASSIGN(*out_tokens, object->cache->find_prefix(spec));
    return {};
  });
}

kvant_error* prefix_clear(kvant_cache* cache, std::uint64_t* out_pages) {
  return guard("prefix_clear", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_pages, "out_pages", "a place for the number of pages"));
    KVANT_TRY(check_prefixes_kept(*object));
    KVANT_ASSIGN(*out_pages, object->cache->clear_prefixes());
    return {};
  });
}

kvant_error* prefix_policy(kvant_cache* cache, const kvant_policy_args* policy) {
  return guard("prefix_policy", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_prefixes_kept(*object));
    KVANT_ASSIGN(const PolicySpec spec, read_policy(policy, "policy"));
    return object->cache->set_policy(spec);
  });
}

kvant_error* prefix_stats(kvant_cache* cache, kvant_prefix_stats* stats) {
  return guard("prefix_stats", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_output(stats, "stats"));
    KVANT_TRY(check_prefixes_kept(*object));
    KVANT_ASSIGN(const PrefixCounters counters, object->cache->prefix_counters());
    kvant_prefix_stats values{};
    values.lookups = counters.lookups;
    values.lookup_tokens = counters.lookup_tokens;
    values.hits = counters.hits;
    values.hit_tokens = counters.hit_tokens;
    values.published_pages = counters.published;
    values.merged_pages = counters.merged;
    values.evicted_capacity = counters.evicted_capacity;
    values.evicted_expired = counters.evicted_expired;
    values.evicted_cleared = counters.evicted_cleared;
    values.evicted_limit = counters.evicted_limit;
    values.pages = counters.pages;
    values.unshared_pages = counters.unshared_pages;
    write_struct(stats, values);
    return {};
  });
}

}  // namespace kvant::abi
