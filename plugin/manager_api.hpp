// The functions of the manager extension, by file.
#pragma once

#include <kvant/kvant_ext_manager.h>

#include <cstdint>

namespace kvant::abi {

extern const kvant_ext_manager kManagerApi;  // manager_table.cpp

// state_api.cpp
kvant_error* state_save(kvant_cache* cache, const kvant_state_args* args, const kvant_state_stream* stream);
kvant_error* state_load(kvant_cache* cache, const kvant_state_stream* stream, std::uint32_t* out_count);
kvant_error* state_loaded(kvant_cache* cache, std::uint32_t index, std::uint64_t* out_saved, kvant_sequence* out_sequence);
kvant_error* state_save_file(kvant_cache* cache, const kvant_state_args* args, const char* path);
kvant_error* state_load_file(kvant_cache* cache, const char* path, std::uint32_t* out_count);

}  // namespace kvant::abi
