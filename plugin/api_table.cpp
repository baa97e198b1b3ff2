// The function tables, one a version. Their order is frozen: the assertions below hold the layout of every version.
#include "api.hpp"

#include <cstddef>

namespace kvant::abi {

constexpr kvant_api kApi = {
    .struct_size = sizeof(kvant_api),
    .version = KVANT_VERSION,
    .reserved = 0,
    .error_code = error_code,
    .error_message = error_message,
    .error_source = error_source,
    .error_free = error_free,
    .get_build_info = get_build_info,
    .context_create = context_create,
    .context_destroy = context_destroy,
    .get_extension = get_extension,
    .format_count = format_count,
    .format_info = format_info,
    .format_find = format_find,
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .device_describe = device_describe,
    .device_profile = device_profile,
    .device_profile_entry = device_profile_entry,
    .device_measure_copy = device_measure_copy,
    .row_bytes = row_bytes,
    .quantize = quantize,
    .dequantize = dequantize,
    .cache_create = cache_create,
    .cache_destroy = cache_destroy,
    .cache_stats = cache_stats,
    .cache_convert = cache_convert,
    .sequence_create = sequence_create,
    .sequence_destroy = sequence_destroy,
    .sequence_fork = sequence_fork,
    .sequence_truncate = sequence_truncate,
    .sequence_length = sequence_length,
    .sequence_read = sequence_read,
    .sequence_export = sequence_export,
    .step_plan = step_plan,
    .step_run = step_run,
    .step_commit = step_commit,
    .step_abort = step_abort,
    .paged_plan = paged_plan,
    .paged_read = paged_read,
    .paged_copy = paged_copy,
    .sequence_open = sequence_open,
    .prefix_find = prefix_find,
    .prefix_clear = prefix_clear,
    .prefix_policy = prefix_policy,
    .prefix_stats = prefix_stats,
    .cache_means = cache_means,
};

namespace {

// What a host of an older minor version is told: the slots that it may call.
constexpr kvant_api older(std::uint32_t version, std::size_t size) {
  kvant_api api = kApi;
  api.version = version;
  api.struct_size = size;
  return api;
}

}  // namespace

constexpr kvant_api kApi_1_0 = older(KVANT_MAKE_VERSION(1, 0), offsetof(kvant_api, sequence_open));
constexpr kvant_api kApi_1_1 = older(KVANT_MAKE_VERSION(1, 1), offsetof(kvant_api, cache_means));

namespace {

constexpr std::size_t slot(std::size_t offset) { return (offset - offsetof(kvant_api, error_code)) / sizeof(void*); }

// End of version 1.0: never change a line of this block; a later version adds its own.
static_assert(offsetof(kvant_api, error_code) == 16);
static_assert(slot(offsetof(kvant_api, context_create)) == 5);
static_assert(slot(offsetof(kvant_api, format_count)) == 8);
static_assert(slot(offsetof(kvant_api, device_count)) == 11);
static_assert(slot(offsetof(kvant_api, row_bytes)) == 19);
static_assert(slot(offsetof(kvant_api, cache_create)) == 22);
static_assert(slot(offsetof(kvant_api, sequence_create)) == 26);
static_assert(slot(offsetof(kvant_api, step_plan)) == 33);
static_assert(slot(offsetof(kvant_api, paged_plan)) == 37);
static_assert(slot(offsetof(kvant_api, paged_copy)) == 39);

static_assert(sizeof(kvant_next) == 24 && sizeof(kvant_context_args) == 40 && sizeof(kvant_device_info) == 80);
static_assert(sizeof(kvant_device_args) == 56 && sizeof(kvant_format_info) == 40);
static_assert(sizeof(kvant_cache_stats) == 64 && sizeof(kvant_tensor) == 72);
static_assert(sizeof(kvant_step_args) == 32 && sizeof(kvant_paged_args) == 88);
static_assert(sizeof(kvant_run_args) == 88 && sizeof(kvant_profile_entry) == 40 && sizeof(kvant_build_info) == 64);
static_assert(sizeof(kvant_ext_vulkan) == 40 && sizeof(kvant_vulkan_device_args) == 112 && sizeof(kvant_vulkan_record) == 32);

// End of version 1.1.
static_assert(offsetof(kvant_cache_args, model_id) == 48 && offsetof(kvant_step_entry, tokens) == 64);
static_assert(slot(offsetof(kvant_api, sequence_open)) == 40);
static_assert(slot(offsetof(kvant_api, prefix_stats)) == 44);
static_assert(slot(offsetof(kvant_api, cache_means)) == 45);
static_assert(sizeof(kvant_cache_args) == 104 && sizeof(kvant_step_entry) == 72 && sizeof(kvant_policy_args) == 32);
static_assert(sizeof(kvant_sequence_args) == 72 && sizeof(kvant_prefix_stats) == 112);

// End of version 1.2.
static_assert(offsetof(kvant_layer_args, transform_k) == 48 && sizeof(kvant_layer_args) == 72);
static_assert(sizeof(kvant_api) == 16 + 46 * sizeof(void*));

}  // namespace
}  // namespace kvant::abi
