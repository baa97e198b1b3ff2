// The table of the manager extension.
#include "manager_api.hpp"

#include <cstddef>

namespace kvant::abi {

constexpr kvant_ext_manager kManagerApi = {
    .struct_size = sizeof(kvant_ext_manager),
    .state_save = state_save,
    .state_load = state_load,
    .state_loaded = state_loaded,
    .state_save_file = state_save_file,
    .state_load_file = state_load_file,
    .stats_text = stats_text,
    .stats_observe = stats_observe,
    .stats_sample_errors = stats_sample_errors,
    .events_poll = events_poll,
    .store_open = store_open,
    .store_put = store_put,
    .store_get = store_get,
    .store_find = store_find,
    .store_erase = store_erase,
    .store_clear = store_clear,
    .store_stats = store_stats,
    .sequence_write = sequence_write,
    .clear_all = clear_all,
    .tiers_set = tiers_set,
    .tiers_store = tiers_store,
    .tiers_prefetch = tiers_prefetch,
    .tiers_wait = tiers_wait,
    .memory_plan = memory_plan,
    .memory_limit = memory_limit,
    .memory_weight = memory_weight,
    .cache_quantize = cache_quantize,
    .cache_configure = cache_configure,
    .config_text = config_text,
    .sequence_keep = sequence_keep,
    .sequence_identify = sequence_identify,
    .sequence_shift = sequence_shift,
    .config_default = config_default,
    .config_parse = config_parse,
    .config_write = config_write,
    .config_apply = config_apply,
    .tiers_clear = tiers_clear,
    .sequence_mass = sequence_mass,
    .sequence_mass_clear = sequence_mass_clear,
    .sequence_prune = sequence_prune,
    .cache_cool = cache_cool,
};

// Revision 1 is not released yet: slots and fields still come at the ends, and from the release on only there.
static_assert(offsetof(kvant_ext_manager, state_save) == 8 && offsetof(kvant_ext_manager, stats_text) == 48);
static_assert(sizeof(kvant_ext_manager) == 8 + 40 * sizeof(void*));
static_assert(sizeof(kvant_config_policy) == 56 && sizeof(kvant_config_tiers) == 136 && sizeof(kvant_config_hybrid) == 56);
static_assert(sizeof(kvant_config_monitor) == 48 && sizeof(kvant_config_accuracy) == 64 && sizeof(kvant_config) == 104 + 56 + 136 + 56 + 48 + 64);
static_assert(offsetof(kvant_config, policy) == 104 && offsetof(kvant_config, monitor) == 104 + 56 + 136 + 56 &&
              offsetof(kvant_config, accuracy) == 104 + 56 + 136 + 56 + 48);

}  // namespace kvant::abi
