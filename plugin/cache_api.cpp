// cache_create, cache_destroy, cache_stats, cache_convert, cache_means.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "api.hpp"
#include "boundary.hpp"
#include "cache_args.hpp"
#include "checks.hpp"
#include "objects.hpp"
#include "prefix_args.hpp"

namespace kvant::abi {
namespace {

struct Transform {
  bool rotate = false, centre = false;
  std::vector<float> means;
};

// `side` is "k" or "v", `count` the elements that means have.
Result<Transform> read_transform(std::uint32_t transform, const float* means, std::size_t count, const std::string& name, const char* side) {
  if ((transform & ~(KVANT_TRANSFORM_ROTATE | KVANT_TRANSFORM_CENTRE)) != 0)
    return invalid(name, ".transform_", side, " (", hex(transform), ") has bits that are not KVANT_TRANSFORM_*");
  Transform read{(transform & KVANT_TRANSFORM_ROTATE) != 0, (transform & KVANT_TRANSFORM_CENTRE) != 0, {}};
  if (means == nullptr) return read;
  if (!read.centre) return invalid(name, ".means_", side, " is not NULL without KVANT_TRANSFORM_CENTRE");
  read.means.assign(means, means + count);
  for (std::size_t i = 0; i < count; ++i)
    if (!std::isfinite(means[i])) return invalid(name, ".means_", side, "[", i, "] (", means[i], ") is not finite");
  return read;
}

Result<LayerSpec> read_layer(const kvant_layer_args* args, const std::string& name) {
  kvant_layer_args values{};
  KVANT_TRY(read_args(args, name, values));
  LayerSpec layer;
  if (values.kv_heads == 0 || values.kv_heads > kMaxKvHeads)
    return invalid(name, ".kv_heads (", values.kv_heads, ") is not between 1 and ", kMaxKvHeads);
  layer.kv_heads = values.kv_heads;
  layer.head_dim_k = values.head_dim_k;
  layer.head_dim_v = values.head_dim_v != 0 ? values.head_dim_v : values.head_dim_k;
  KVANT_TRY(check_head_dim(layer.head_dim_k, name + ".head_dim_k"));
  KVANT_TRY(check_head_dim(layer.head_dim_v, name + ".head_dim_v"));
  KVANT_ASSIGN(layer.format_k, check_format(values.format_k, name + ".format_k"));
  KVANT_ASSIGN(layer.format_v, check_format(values.format_v, name + ".format_v"));
  if (values.window > kMaxTokens) return invalid(name, ".window (", values.window, ") is greater than ", kMaxTokens);
  if (values.window_sinks > kMaxTokens)
    return invalid(name, ".window_sinks (", values.window_sinks, ") is greater than ", kMaxTokens);
  if (values.window == 0 && values.window_sinks != 0)
    return invalid(name, ".window_sinks (", values.window_sinks, ") is not 0 although ", name, ".window is 0");
  layer.window = values.window;
  layer.window_sinks = values.window_sinks;
  KVANT_ASSIGN(Transform k, read_transform(values.transform_k, values.means_k, std::size_t{layer.kv_heads} * layer.head_dim_k, name, "k"));
  KVANT_ASSIGN(Transform v, read_transform(values.transform_v, values.means_v, std::size_t{layer.kv_heads} * layer.head_dim_v, name, "v"));
  layer.rotate_k = k.rotate;
  layer.rotate_v = v.rotate;
  layer.centre_k = k.centre;
  layer.centre_v = v.centre;
  layer.means_k = std::move(k.means);
  layer.means_v = std::move(v.means);
  return layer;
}

Status check_one_group(const CacheSpec& spec) {
  const LayerSpec& first = spec.layers.front();
  for (std::size_t i = 1; i < spec.layers.size(); ++i) {
    const LayerSpec& layer = spec.layers[i];
    if (layer.kv_heads != first.kv_heads || layer.head_dim_k != first.head_dim_k || layer.head_dim_v != first.head_dim_v ||
        layer.window != first.window || layer.window_sinks != first.window_sinks)
      return invalid("args.layers[", i, "] (", layer.kv_heads, " heads of ", layer.head_dim_k, " and ", layer.head_dim_v,
                     ", window ", layer.window, " + ", layer.window_sinks, ") differs from layers[0] (", first.kv_heads,
                     " heads of ", first.head_dim_k, " and ", first.head_dim_v, ", window ", first.window, " + ",
                     first.window_sinks, "); KVANT_CACHE_EXTERNAL_PAGES needs equal layers");
  }
  return {};
}

Status read_prefix_args(const kvant_cache_args& values, CacheSpec& spec) {
  spec.prefix_cache = (values.flags & KVANT_CACHE_PREFIXES) != 0;
  if (!spec.prefix_cache) {
    if (values.model_id != nullptr || values.rope != nullptr || values.policy != nullptr)
      return invalid("args.", values.model_id != nullptr ? "model_id" : values.rope != nullptr ? "rope" : "policy",
                     " is not NULL without KVANT_CACHE_PREFIXES");
    return {};
  }
  if (values.model_id != nullptr) spec.model_id = values.model_id;
  if (values.rope != nullptr) spec.rope = values.rope;
  if (values.policy != nullptr) {
    KVANT_ASSIGN(spec.policy, read_policy(values.policy, "args.policy"));
  }
  return {};
}

Result<ProtectionSpec> read_protection(const kvant_cache_args& values) {
  if ((values.protect_sides & ~(KVANT_PROTECT_K | KVANT_PROTECT_V)) != 0)
    return invalid("args.protect_sides (", hex(values.protect_sides), ") has bits that are not KVANT_PROTECT_*");
  constexpr std::uint32_t kMost = 65536;
  for (const auto& [tokens, name] : {std::pair{values.protect_first, "protect_first"}, {values.protect_newest, "protect_newest"}}) {
    if (tokens > kMost) return invalid("args.", name, " (", tokens, ") is greater than ", kMost);
    if (tokens != 0 && values.protect_sides == 0) return invalid("args.", name, " (", tokens, ") is not 0 although args.protect_sides is 0");
  }
  if (values.reserved != 0) return invalid("args.reserved (", values.reserved, ") is not 0");
  const bool tokens = values.protect_first != 0 || values.protect_newest != 0;
  if (!tokens && values.protect_sides != 0)
    return invalid("args.protect_sides (", hex(values.protect_sides), ") is not 0 although args.protect_first and args.protect_newest are");
  if (!tokens && values.protect_tokens != 0) return invalid("args.protect_tokens (", values.protect_tokens, ") is not 0 although nothing is protected");
  if (values.protect_tokens > kMaxTokens) return invalid("args.protect_tokens (", values.protect_tokens, ") is greater than ", kMaxTokens);
  if (tokens && (values.flags & KVANT_CACHE_EXTERNAL_PAGES) != 0)
    return invalid("args.protect_sides (", hex(values.protect_sides), ") is not 0 with KVANT_CACHE_EXTERNAL_PAGES");
  return ProtectionSpec{values.protect_first, values.protect_newest, (values.protect_sides & KVANT_PROTECT_K) != 0,
                        (values.protect_sides & KVANT_PROTECT_V) != 0, values.protect_tokens};
}

}  // namespace

Result<CacheSpec> read_cache_args(const kvant_cache_args* args) {
  kvant_cache_args values{};
  KVANT_TRY(read_args(args, "args", values));
  if (values.layer_count == 0 || values.layer_count > kMaxLayers)
    return invalid("args.layer_count (", values.layer_count, ") is not between 1 and ", kMaxLayers);
  if (values.capacity_tokens == 0 || values.capacity_tokens > kMaxTokens)
    return invalid("args.capacity_tokens (", values.capacity_tokens, ") is not between 1 and ", kMaxTokens);
  if (values.page_tokens != 0 && values.page_tokens != 16 && values.page_tokens != 32)
    return invalid("args.page_tokens (", values.page_tokens, ") is not 16, 32 or 0");
  constexpr std::uint32_t kFlags = KVANT_CACHE_EXTERNAL_PAGES | KVANT_CACHE_PREFIXES | KVANT_CACHE_MASS;
  if ((values.flags & ~kFlags) != 0)
    return invalid("args.flags (", hex(values.flags), ") have bits beyond ", hex(kFlags));
  for (const auto& [flag, name] : {std::pair{KVANT_CACHE_PREFIXES, "KVANT_CACHE_PREFIXES"}, {KVANT_CACHE_MASS, "KVANT_CACHE_MASS"}})
    if ((values.flags & KVANT_CACHE_EXTERNAL_PAGES) != 0 && (values.flags & flag) != 0)
      return invalid("args.flags (", hex(values.flags), ") ask for ", name, " with KVANT_CACHE_EXTERNAL_PAGES; expected one of the two");
  KVANT_TRY(check_pointer(values.layers, "args.layers", text(values.layer_count, " kvant_layer_args")));
  KVANT_ASSIGN(const std::size_t stride, element_stride(values.layers, values.layer_stride, "args.layers", "args.layer_stride"));

  CacheSpec spec;
  spec.page_tokens = values.page_tokens != 0 ? values.page_tokens : 16;
  spec.capacity_tokens = values.capacity_tokens;
  spec.external_pages = (values.flags & KVANT_CACHE_EXTERNAL_PAGES) != 0;
  spec.attention_mass = (values.flags & KVANT_CACHE_MASS) != 0;
  spec.slab_bytes = values.slab_bytes;
  spec.layers.reserve(values.layer_count);
  for (std::uint32_t i = 0; i < values.layer_count; ++i) {
    KVANT_ASSIGN(const LayerSpec layer, read_layer(element_at(values.layers, stride, i), text("args.layers[", i, "]")));
    spec.layers.push_back(layer);
  }
  if (spec.external_pages) KVANT_TRY(check_one_group(spec));
  KVANT_TRY(read_prefix_args(values, spec));
  KVANT_ASSIGN(spec.protection, read_protection(values));
  return spec;
}

kvant_error* cache_create(kvant_device* device, const kvant_cache_args* args, kvant_cache** out_cache) {
  return guard("cache_create", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_TRY(check_pointer(out_cache, "out_cache", "a place for the cache"));
    KVANT_ASSIGN(CacheSpec spec, read_cache_args(args));
    auto cache = std::make_shared<CacheObject>(object.object());
    spec.first_sequence = cache->mark + 1;
    KVANT_ASSIGN(cache->cache, Cache::create(object->executor(), spec, object->context->log));
    KVANT_ASSIGN(*out_cache, add(cache));
    return {};
  });
}

void cache_destroy(kvant_cache* cache) {
  guard_void([&] { destroy_cache(cache); });
}

kvant_error* cache_means(kvant_cache* cache, std::uint32_t layer, std::uint32_t side, float* out, std::uint64_t count) {
  return guard("cache_means", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_ASSIGN(const Side of, check_side(side));
    KVANT_TRY(check_pointer(out, "out", text(count, " floats")));
    if (const std::vector<LayerSpec>& layers = object->cache->spec().layers; layer < layers.size()) {
      const std::uint64_t needed = std::uint64_t{layers[layer].kv_heads} * (of == Side::k ? layers[layer].head_dim_k : layers[layer].head_dim_v);
      if (count != needed) return invalid("count (", count, ") is not the ", needed, " elements of a mean of layer ", layer);
    }
    KVANT_ASSIGN(const std::vector<float> means, object->cache->means(layer, of));
    std::copy(means.begin(), means.end(), out);
    return {};
  });
}

kvant_error* cache_stats(kvant_cache* cache, kvant_cache_stats* stats) {
  return guard("cache_stats", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_output(stats, "stats"));
    const MemoryUse use = object->cache->memory_use();
    kvant_cache_stats values{};
    values.pool_bytes = use.pool_bytes;
    values.used_bytes = use.used_bytes;
    values.used_pages = use.used_pages;
    values.total_pages = use.total_pages;
    values.sequence_tokens = use.sequence_tokens;
    values.sequence_count = object->cache->sequences().size();  // with those of a store
    write_struct(stats, values);
    return {};
  });
}

kvant_error* cache_convert(kvant_cache* cache, std::uint32_t layer, std::uint32_t side, std::uint32_t format) {
  return guard("cache_convert", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_layer(layer, object->cache->spec()));
    KVANT_ASSIGN(const Side which, check_side(side));
    KVANT_ASSIGN(const FormatId id, check_format(format, "format"));
    if (object->step_open) return precondition("a step of the cache is open; commit or abort it before cache_convert");
    return object->cache->convert(layer, which, id);
  });
}

}  // namespace kvant::abi
