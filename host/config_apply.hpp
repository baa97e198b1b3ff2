// From a configuration to what it asks for: the cache's spec, its tiers, its memory limit.
#pragma once

#include <memory>
#include <vector>

#include "cache.hpp"
#include "config.hpp"

namespace kvant {

// `config` is valid. What it leaves open stays as `spec` says.
Status apply_config(const CacheConfig& config, CacheSpec& spec);
// The same cache in the formats of a hybrid's cold part. Only with hybrid formats.
CacheSpec cold_spec(const CacheConfig& config, const CacheSpec& hot);
Result<std::vector<std::unique_ptr<Tier>>> make_tiers(const TiersConfig& config);
TierOptions tier_options(const TiersConfig& config);

}  // namespace kvant
