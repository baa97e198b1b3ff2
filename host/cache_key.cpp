#include "cache_key.hpp"

#include <bit>
#include <cstdio>
#include <vector>

#include "cache_journal.hpp"

namespace kvant {

std::string side_text(const LayerSpec& layer, Side side) {
  const bool k = side == Side::k;
  std::string text(format_info(k ? layer.format_k : layer.format_v).name);
  if (k ? layer.centre_k : layer.centre_v) text += " centred";
  if (const std::vector<float>& means = k ? layer.means_k : layer.means_v; !means.empty()) {
    KeyFields fields("kvant.means/1");
    std::vector<std::int32_t> words;
    for (const float x : means) words.push_back(std::bit_cast<std::int32_t>(x));
    fields.add(1, std::span<const std::int32_t>(words));
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(CacheJournal::short_key(sha256(fields.bytes()))));
    text += std::string(" by ") + digits;
  }
  return text + ((k ? layer.rotate_k : layer.rotate_v) ? " rotated" : "");
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
