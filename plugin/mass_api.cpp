// sequence_mass, sequence_mass_clear and sequence_prune of the manager extension.
#include <algorithm>
#include <optional>

#include "boundary.hpp"
#include "checks.hpp"
#include "manager_api.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

Status check_mass(const CacheObject& cache) {
  if (cache.cache->spec().attention_mass) return {};
  return precondition("the cache counts no attention mass: it was created without KVANT_CACHE_MASS, or attention_mass in its configuration");
}

}  // namespace

kvant_error* sequence_mass(kvant_cache* cache, kvant_sequence sequence, std::uint32_t layer, std::uint32_t kv_head,
                           std::uint64_t begin, std::uint64_t count, float* out) {
  return guard("sequence_mass", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_mass(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    KVANT_TRY(check_token_range(*object, id, begin, count));
    std::optional<std::uint32_t> which_layer, which_head;
    if (layer != KVANT_MASS_ALL) {
      KVANT_TRY(check_layer(layer, object->cache->spec()));
      which_layer = layer;
    }
    if (kv_head != KVANT_MASS_ALL) {
      const std::vector<LayerSpec>& layers = object->cache->spec().layers;
      for (std::size_t i = which_layer.value_or(0); i < (which_layer ? *which_layer + std::size_t{1} : layers.size()); ++i)
        if (kv_head >= layers[i].kv_heads)
          return invalid("kv_head (", kv_head, ") is neither KVANT_MASS_ALL nor less than the ", layers[i].kv_heads,
                         " KV heads of layer ", i);
      which_head = kv_head;
    }
    if (count != 0) KVANT_TRY(check_pointer(out, "out", text(count, " floats")));
    return object->cache->attention_mass(id, which_layer, which_head, begin, {out, count});
  });
}

kvant_error* sequence_mass_clear(kvant_cache* cache, kvant_sequence sequence) {
  return guard("sequence_mass_clear", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_mass(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    return object->cache->clear_mass(id);
  });
}

kvant_error* sequence_prune(kvant_cache* cache, kvant_sequence sequence, const kvant_prune_args* args,
                            std::uint64_t* out_places, std::uint64_t* out_count) {
  return guard("sequence_prune", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_mass(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    kvant_prune_args values{};
    KVANT_TRY(read_args(args, "args", values));
    KVANT_TRY(check_pointer(out_count, "out_count", "a place for the number of tokens that stay"));
    if (object->step_open) return precondition("a step of the cache is open; commit or abort it before sequence_prune");
    const PruneSpec spec{.keep = values.keep_tokens,
                         .sinks = values.sinks != 0 ? values.sinks : PruneSpec{}.sinks,
                         .recent = values.recent != 0 ? values.recent : PruneSpec{}.recent};
    KVANT_ASSIGN(const std::vector<std::uint64_t> kept, object->cache->prune_sequence(id, spec));
    if (out_places != nullptr) std::copy(kept.begin(), kept.end(), out_places);
    *out_count = kept.size();
    return {};
  });
}

kvant_error* cache_cool(kvant_cache* cache, const kvant_cool_args* args, std::uint64_t* out_pages) {
  return guard("cache_cool", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_mass(*object));
    kvant_cool_args values{};
    KVANT_TRY(read_args(args, "args", values));
    if (values.reserved != 0) return invalid("args.reserved (", values.reserved, ") is not 0");
    CoolSpec spec;
    spec.target_bytes = values.target_bytes;
    if (values.sinks != 0) spec.sinks = values.sinks;
    if (values.recent != 0) spec.recent = values.recent;
    if (values.formats == nullptr && values.format_count != 0)
      return invalid("args.formats is NULL although args.format_count (", values.format_count, ") is not 0");
    if (values.formats != nullptr) {
      if (values.format_count < 1 || values.format_count > 2) return invalid("args.format_count (", values.format_count, ") is not 1 or 2");
      spec.formats.clear();
      for (std::uint32_t i = 0; i < values.format_count; ++i) {
        KVANT_ASSIGN(const FormatId format, check_format(values.formats[i], text("args.formats[", i, "]")));
        spec.formats.push_back(format);
      }
    }
    if (object->step_open) return precondition("a step of the cache is open; commit or abort it before cache_cool");
    KVANT_ASSIGN(const CoolReport report, object->cache->cool(spec));
    if (out_pages != nullptr) *out_pages = report.pages;
    return {};
  });
}

}  // namespace kvant::abi
