#include "cache_key.hpp"

namespace kvant {

std::string side_text(const LayerSpec& layer, Side side) {
  const bool rotated = side == Side::k ? layer.rotate_k : layer.rotate_v;
  return std::string(format_info(side == Side::k ? layer.format_k : layer.format_v).name) + (rotated ? " rotated" : "");
}

PrefixKey cache_content_key(const CacheSpec& spec) {
  enum : std::uint32_t { kModel = 1, kRope, kPageTokens, kLayer, kFormatK, kFormatV };
  KeyFields fields("kvant.prefix.content/1");
  fields.add(kModel, spec.model_id);
  fields.add(kRope, spec.rope);
  fields.add(kPageTokens, std::uint64_t{spec.page_tokens});
  for (const LayerSpec& layer : spec.layers) {
    for (const std::uint32_t value :
         {layer.kv_heads, layer.head_dim_k, layer.head_dim_v, layer.window, layer.window_sinks})
      fields.add(kLayer, std::uint64_t{value});
    // By name: ids are those of one build.
    fields.add(kFormatK, side_text(layer, Side::k));
    fields.add(kFormatV, side_text(layer, Side::v));
  }
  return sha256(fields.bytes());
}

}  // namespace kvant
