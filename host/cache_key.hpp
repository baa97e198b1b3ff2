// What a cache's K and V depend on besides tokens, as a key.
#pragma once

#include "cache.hpp"
#include "prefix_key.hpp"

namespace kvant {

PrefixKey cache_content_key(const CacheSpec& spec);

}  // namespace kvant
