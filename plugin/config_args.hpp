// kvant_config, the public struct of a configuration, from and to CacheConfig.
#pragma once

#include <kvant/kvant_config.h>

#include <functional>
#include <string>

#include "config.hpp"

namespace kvant::abi {

// Checked: each member as its key would be, then those that depend on each other. The capacity and the model_id are `base`'s where
// the struct has none. Errors: invalid_argument, naming the key.
Result<CacheConfig> read_config(const kvant_config* in, std::string_view name, const CacheConfig& base = {});

// All members. `keep` gives a place of the text that lives as long as the struct may be read.
kvant_config config_values(const CacheConfig& config, const std::function<const char*(const std::string&)>& keep);

}  // namespace kvant::abi
