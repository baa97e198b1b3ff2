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

// stats_api.cpp
kvant_error* stats_text(kvant_cache* cache, std::uint32_t kind, const char* labels, const char** out_text,
                        std::uint64_t* out_size);
kvant_error* stats_observe(kvant_cache* cache);
kvant_error* stats_sample_errors(kvant_cache* cache, std::uint64_t every_tokens);
kvant_error* events_poll(kvant_cache* cache, std::uint64_t since, std::uint32_t capacity, kvant_event* events,
                         std::uint32_t* out_count, std::uint64_t* out_lost);

// store_api.cpp
kvant_error* store_open(kvant_cache* cache, const kvant_store_options* options);
kvant_error* store_put(kvant_cache* cache, const kvant_store_args* args);
kvant_error* store_get(kvant_cache* cache, const kvant_store_args* args, std::uint32_t* out_found);
kvant_error* store_find(kvant_cache* cache, const kvant_store_args* args, std::uint32_t* out_layers);
kvant_error* store_erase(kvant_cache* cache, const kvant_store_args* args);
kvant_error* store_clear(kvant_cache* cache);
kvant_error* store_stats(kvant_cache* cache, kvant_store_stats* stats);

// write_api.cpp
kvant_error* sequence_write(kvant_cache* cache, kvant_sequence sequence, std::uint32_t layer, std::uint64_t begin,
                            std::uint64_t count, const kvant_tensor* k, const kvant_tensor* v);
kvant_error* sequence_keep(kvant_cache* cache, kvant_sequence sequence, std::uint64_t count, const std::uint64_t* places);
kvant_error* sequence_identify(kvant_cache* cache, kvant_sequence sequence, std::uint64_t count, const std::int32_t* tokens);
kvant_error* sequence_shift(kvant_cache* cache, kvant_sequence sequence, std::uint64_t begin, std::uint64_t count,
                            const kvant_rotation* rotation, std::int64_t positions);
kvant_error* clear_all(kvant_cache* cache, std::uint64_t* out_sequences);

// mass_api.cpp
kvant_error* sequence_mass(kvant_cache* cache, kvant_sequence sequence, std::uint32_t layer, std::uint32_t kv_head,
                           std::uint64_t begin, std::uint64_t count, float* out);
kvant_error* sequence_mass_clear(kvant_cache* cache, kvant_sequence sequence);
kvant_error* sequence_prune(kvant_cache* cache, kvant_sequence sequence, const kvant_prune_args* args,
                            std::uint64_t* out_places, std::uint64_t* out_count);
kvant_error* cache_cool(kvant_cache* cache, const kvant_cool_args* args, std::uint64_t* out_pages);

// tiers_api.cpp
kvant_error* tiers_set(kvant_cache* cache, const kvant_tiers_args* args);
kvant_error* tiers_store(kvant_cache* cache);
kvant_error* tiers_prefetch(kvant_cache* cache, const kvant_sequence_args* args);
kvant_error* tiers_wait(kvant_cache* cache);
kvant_error* tiers_clear(kvant_cache* cache, std::uint32_t tier);

// memory_api.cpp
kvant_error* memory_plan(kvant_cache* cache, const kvant_memory_args* args, const char** out_text);
kvant_error* memory_limit(kvant_cache* cache, const kvant_memory_args* args);
kvant_error* memory_weight(kvant_cache* cache, std::uint32_t layer, std::uint32_t side, double weight);
kvant_error* cache_quantize(kvant_cache* cache, std::uint32_t format_k, std::uint32_t format_v);

// config_api.cpp
kvant_error* cache_configure(kvant_device* device, const kvant_cache_args* args, const char* json, kvant_cache** out_cache);
kvant_error* config_text(kvant_cache* cache, const char** out_json);
kvant_error* config_default(kvant_context* context, const char* preset, kvant_config* out_config);
kvant_error* config_parse(kvant_context* context, const char* json, kvant_config* out_config);
kvant_error* config_write(kvant_context* context, const kvant_config* config, const char** out_json);
kvant_error* config_apply(kvant_device* device, const kvant_cache_args* args, const kvant_config* config,
                          kvant_cache** out_cache);

}  // namespace kvant::abi
