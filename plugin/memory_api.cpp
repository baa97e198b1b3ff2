// The memory functions of the manager extension.
#include <cmath>

#include "boundary.hpp"
#include "checks.hpp"
#include "manager_api.hpp"
#include "memory_planner.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

struct MemoryRequest {
  std::uint64_t limit_bytes = 0;
  MemoryOptions options;
};

Result<MemoryRequest> read_memory_args(const kvant_memory_args* args, const Cache& cache) {
  kvant_memory_args values{};
  KVANT_TRY(read_args(args, "args", values));
  if ((values.flags & ~KVANT_MEMORY_PRUNE) != 0)
    return invalid("args.flags (", hex(values.flags), ") have bits beyond ", hex(KVANT_MEMORY_PRUNE));
  MemoryRequest request;
  request.options.prune = (values.flags & KVANT_MEMORY_PRUNE) != 0;
  if (request.options.prune && !cache.spec().attention_mass)
    return precondition("KVANT_MEMORY_PRUNE needs attention mass, the cache was created without KVANT_CACHE_MASS, or attention_mass in its configuration");
  if (values.sinks != 0) request.options.sinks = values.sinks;
  if (values.recent != 0) request.options.recent = values.recent;
  request.limit_bytes = values.limit_bytes;
  if (values.formats == nullptr) {
    if (values.format_count != 0) return invalid("args.formats is NULL although args.format_count (", values.format_count, ") is not 0");
    return request;
  }
  if (values.format_count > formats().size())
    return invalid("args.format_count (", values.format_count, ") is greater than the ", formats().size(), " formats there are");
  request.options.ladder.clear();
  for (std::uint32_t i = 0; i < values.format_count; ++i) {
    KVANT_ASSIGN(const FormatId format, check_format(values.formats[i], text("args.formats[", i, "]")));
    request.options.ladder.push_back(format);
  }
  return request;
}

Status check_step_closed(const CacheObject& cache, std::string_view call) {
  if (cache.step_open) return precondition("a step of the cache is open; commit or abort it before ", call);
  return {};
}

}  // namespace

kvant_error* memory_plan(kvant_cache* cache, const kvant_memory_args* args, const char** out_text) {
  return guard("memory_plan", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_TRY(check_pointer(out_text, "out_text", "a place for the text"));
    KVANT_ASSIGN(const MemoryRequest request, read_memory_args(args, *object->cache));
    KVANT_ASSIGN(object->plan_text, object->cache->plan_limit_text(request.limit_bytes, request.options));
    *out_text = object->plan_text.c_str();
    return {};
  });
}

kvant_error* memory_limit(kvant_cache* cache, const kvant_memory_args* args) {
  return guard("memory_limit", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const MemoryRequest request, read_memory_args(args, *object->cache));
    KVANT_TRY(check_step_closed(*object, "memory_limit"));
    return object->cache->set_memory_limit(request.limit_bytes, request.options);
  });
}

kvant_error* memory_weight(kvant_cache* cache, std::uint32_t layer, std::uint32_t side, double weight) {
  return guard("memory_weight", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_layer(layer, object->cache->spec()));
    KVANT_ASSIGN(const Side which, check_side(side));
    if (!std::isfinite(weight)) return invalid("weight (", weight, ") is not a finite number");
    return object->cache->set_sensitivity(layer, which, weight);
  });
}

kvant_error* cache_quantize(kvant_cache* cache, std::uint32_t format_k, std::uint32_t format_v) {
  return guard("cache_quantize", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_ASSIGN(const FormatId k, check_format(format_k, "format_k"));
    KVANT_ASSIGN(const FormatId v, check_format(format_v, "format_v"));
    KVANT_TRY(check_step_closed(*object, "cache_quantize"));
    return object->cache->quantize_all(k, v);
  });
}

}  // namespace kvant::abi
