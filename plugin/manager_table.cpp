// The table of the manager extension.
#include "manager_api.hpp"

namespace kvant::abi {

constexpr kvant_ext_manager kManagerApi = {
    .struct_size = sizeof(kvant_ext_manager),
    .state_save = state_save,
    .state_load = state_load,
    .state_loaded = state_loaded,
    .state_save_file = state_save_file,
    .state_load_file = state_load_file,
};

}  // namespace kvant::abi
