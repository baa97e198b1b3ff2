// What a cache's K and V depend on besides tokens, as a key.
#pragma once

#include <string>

#include "cache_spec.hpp"
#include "prefix_key.hpp"

namespace kvant {

// What the bytes of a side are: the format's name, and behind it "centred", by which means if they are given, and "rotated".
std::string side_text(const LayerSpec& layer, Side side);

PrefixKey cache_content_key(const CacheSpec& spec);

}  // namespace kvant
