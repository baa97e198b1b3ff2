// Every function of the table, one file per object. The header kvant.h documents them.
#pragma once

#include <cstdint>

#include <kvant/kvant.h>
#include <kvant/kvant_ext_vulkan.h>

namespace kvant::abi {

extern const kvant_api kApi;
extern const kvant_api kApi_1_0;  // the same, for hosts compiled against 1.0              // api_table.cpp
extern const kvant_api kApi_1_1;  // the same, for hosts compiled against 1.1              // api_table.cpp
extern const kvant_ext_vulkan kVulkanApi; // ext_vulkan.cpp

// error.cpp
std::uint32_t error_code(const kvant_error* error);
const char* error_message(const kvant_error* error);
const char* error_source(const kvant_error* error);
void error_free(kvant_error* error);

// context_api.cpp
kvant_error* get_build_info(kvant_build_info* info);
kvant_error* context_create(const kvant_context_args* args, kvant_context** out_context);
void context_destroy(kvant_context* context);
const void* get_extension(kvant_context* context, const char* id);

// format_api.cpp
kvant_error* format_count(kvant_context* context, std::uint32_t* out_count);
kvant_error* format_info(kvant_context* context, std::uint32_t format, kvant_format_info* info);
kvant_error* format_find(kvant_context* context, const char* name, std::uint32_t* out_format);

// device_api.cpp
kvant_error* device_count(kvant_context* context, std::uint32_t* out_count);
kvant_error* device_info(kvant_context* context, std::uint32_t device_index, kvant_device_info* info);
kvant_error* device_open(kvant_context* context, const kvant_device_args* args, kvant_device** out_device);
void device_close(kvant_device* device);
kvant_error* device_describe(kvant_device* device, kvant_device_info* info);

// profile_api.cpp
kvant_error* device_profile(kvant_device* device, std::uint32_t* out_count);
kvant_error* device_profile_entry(kvant_device* device, std::uint32_t index, kvant_profile_entry* entry);
kvant_error* device_measure_copy(kvant_device* device, std::uint64_t size, double* out_bytes_per_second);

// convert_api.cpp
kvant_error* row_bytes(kvant_context* context, std::uint32_t format, std::uint32_t head_dim, std::uint64_t* out_bytes);
kvant_error* quantize(kvant_device* device, std::uint32_t format, std::uint32_t head_dim, std::uint64_t rows, const float* input,
                      std::uint64_t input_size, void* output, std::uint64_t output_size);
kvant_error* dequantize(kvant_device* device, std::uint32_t format, std::uint32_t head_dim, std::uint64_t rows,
                        const void* input, std::uint64_t input_size, float* output, std::uint64_t output_size);

// cache_api.cpp
kvant_error* cache_create(kvant_device* device, const kvant_cache_args* args, kvant_cache** out_cache);
void cache_destroy(kvant_cache* cache);
kvant_error* cache_stats(kvant_cache* cache, kvant_cache_stats* stats);
kvant_error* cache_convert(kvant_cache* cache, std::uint32_t layer, std::uint32_t side, std::uint32_t format);

// sequence_api.cpp
kvant_error* sequence_create(kvant_cache* cache, kvant_sequence* out_sequence);
kvant_error* sequence_destroy(kvant_cache* cache, kvant_sequence sequence);
kvant_error* sequence_fork(kvant_cache* cache, kvant_sequence parent, std::uint64_t tokens, kvant_sequence* out_child);
kvant_error* sequence_truncate(kvant_cache* cache, kvant_sequence sequence, std::uint64_t tokens);
kvant_error* sequence_length(kvant_cache* cache, kvant_sequence sequence, std::uint64_t* out_tokens);
kvant_error* sequence_read(kvant_cache* cache, kvant_sequence sequence, std::uint32_t layer, std::uint32_t side,
                           std::uint64_t begin, std::uint64_t count, const kvant_tensor* out);
kvant_error* sequence_export(kvant_cache* cache, kvant_sequence sequence, std::uint32_t layer, std::uint32_t side,
                             std::uint64_t begin, std::uint64_t count, void* out, std::uint64_t out_size);

// prefix_api.cpp
kvant_error* sequence_open(kvant_cache* cache, const kvant_sequence_args* args, kvant_sequence* out_sequence,
                           std::uint64_t* out_reused_tokens);
kvant_error* prefix_find(kvant_cache* cache, const kvant_sequence_args* args, std::uint64_t* out_tokens);
kvant_error* prefix_clear(kvant_cache* cache, std::uint64_t* out_pages);
kvant_error* prefix_policy(kvant_cache* cache, const kvant_policy_args* policy);
kvant_error* prefix_stats(kvant_cache* cache, kvant_prefix_stats* stats);
kvant_error* cache_means(kvant_cache* cache, std::uint32_t layer, std::uint32_t side, float* out, std::uint64_t count);

// step_api.cpp
kvant_error* step_plan(kvant_cache* cache, const kvant_step_args* args, kvant_step** out_step);
kvant_error* step_run(kvant_step* step, std::uint32_t layer, const kvant_run_args* args);
kvant_error* step_commit(kvant_step* step);
void step_abort(kvant_step* step);

// paged_api.cpp
kvant_error* paged_plan(kvant_cache* cache, const kvant_paged_args* args, kvant_step** out_step);
kvant_error* paged_read(kvant_cache* cache, std::uint32_t layer, std::uint32_t side, std::uint64_t slot_count,
                        const std::int64_t* slots, const kvant_tensor* out);
kvant_error* paged_copy(kvant_cache* cache, std::uint32_t pair_count, const std::int32_t* source_pages,
                        const std::int32_t* destination_pages);

// ext_vulkan.cpp
const char* vulkan_recommended(kvant_context* context);
kvant_error* vulkan_device_import(kvant_context* context, const kvant_vulkan_device_args* args, kvant_device** out_device);
kvant_error* vulkan_device_timeline(kvant_device* device, std::uint64_t* out_semaphore, std::uint64_t* out_value);
kvant_error* vulkan_device_wait(kvant_device* device);

}  // namespace kvant::abi
