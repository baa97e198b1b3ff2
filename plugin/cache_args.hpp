// What a cache is created from, checked.
#pragma once

#include <kvant/kvant.h>

#include "cache.hpp"

namespace kvant::abi {

Result<CacheSpec> read_cache_args(const kvant_cache_args* args);

}  // namespace kvant::abi
