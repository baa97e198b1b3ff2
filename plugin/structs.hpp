// The fields of every struct that crosses the boundary, and the readers and writers that respect struct_size: a field is touched
// only if it lies inside; a missing tail reads as zero; a larger struct is accepted and its tail ignored.
#pragma once

#include <cstddef>
#include <cstring>
#include <tuple>

#include <kvant/kvant.h>
#include <kvant/kvant_ext_manager.h>
#include <kvant/kvant_ext_vulkan.h>

#include "text.hpp"

namespace kvant::abi {

template <typename T>
struct StructFields;

// Lists all fields after `next`, in order. The assertion catches a forgotten one: fields leave no gap but the tail.
#define KVANT_STRUCT(type, ...)                                                               \
  template <>                                                                                 \
  struct StructFields<type> {                                                                 \
    using S = type;                                                                           \
    static constexpr const char* name = #type;                                                \
    static constexpr std::tuple members{__VA_ARGS__};                                         \
  };                                                                                          \
  static_assert(struct_bytes(StructFields<type>::members) == sizeof(type), "a field of " #type " is not listed")

template <typename S, typename... M>
constexpr std::size_t struct_bytes(const std::tuple<M S::*...>&) {
  return (sizeof(std::size_t) + sizeof(void*) + (sizeof(M) + ...) + 7) / 8 * 8;
}

KVANT_STRUCT(kvant_context_args, &S::user_data, &S::log, &S::log_level, &S::enable_validation);
KVANT_STRUCT(kvant_device_info, &S::name, &S::driver, &S::type, &S::vendor_id, &S::device_id, &S::api_version, &S::memory_size,
             &S::tier, &S::usable, &S::reasons, &S::json);
KVANT_STRUCT(kvant_device_args, &S::device_index, &S::enable_profiling, &S::capability_override, &S::quirks,
             &S::pipeline_cache_folder, &S::memory_limit);
KVANT_STRUCT(kvant_format_info, &S::name, &S::block_elements, &S::block_bytes, &S::bits_per_element);
KVANT_STRUCT(kvant_layer_args, &S::kv_heads, &S::head_dim_k, &S::head_dim_v, &S::format_k, &S::format_v, &S::window,
             &S::window_sinks, &S::unused, &S::transform_k, &S::transform_v, &S::means_k,
             &S::means_v);
KVANT_STRUCT(kvant_cache_args, &S::layer_count, &S::layer_stride, &S::layers, &S::capacity_tokens, &S::page_tokens, &S::flags,
             &S::model_id, &S::rope, &S::policy, &S::slab_bytes,
             &S::protect_sides, &S::protect_first, &S::protect_newest, &S::reserved, &S::protect_tokens);
KVANT_STRUCT(kvant_policy_args, &S::kind, &S::sink_pages, &S::ttl_ms);
KVANT_STRUCT(kvant_sequence_args, &S::tokens, &S::token_count, &S::salt, &S::salt_size, &S::leave_tokens, &S::ttl_ms,
             &S::priority, &S::flags);
KVANT_STRUCT(kvant_prefix_stats, &S::lookups, &S::lookup_tokens, &S::hits, &S::hit_tokens, &S::published_pages,
             &S::merged_pages, &S::evicted_capacity, &S::evicted_expired, &S::evicted_cleared, &S::evicted_limit, &S::pages,
             &S::unshared_pages);
KVANT_STRUCT(kvant_cache_stats, &S::pool_bytes, &S::used_bytes, &S::used_pages, &S::total_pages, &S::sequence_tokens,
             &S::sequence_count);
KVANT_STRUCT(kvant_tensor, &S::data, &S::size, &S::buffer, &S::offset, &S::type, &S::reserved, &S::token_stride,
             &S::head_stride);
KVANT_STRUCT(kvant_step_entry, &S::sequence, &S::append, &S::queries, &S::flags, &S::query_position, &S::mask, &S::mask_begin,
             &S::mask_row_words, &S::reserved, &S::tokens);
KVANT_STRUCT(kvant_step_args, &S::entry_count, &S::entry_stride, &S::entries);
KVANT_STRUCT(kvant_paged_args, &S::batch, &S::token_count, &S::slot_mapping, &S::qo_indptr, &S::kv_indptr, &S::kv_indices,
             &S::kv_last_page_len, &S::query_positions, &S::mask, &S::mask_row_words, &S::reserved);
KVANT_STRUCT(kvant_run_args, &S::k, &S::v, &S::q, &S::out, &S::lse, &S::q_heads, &S::flags, &S::scale, &S::soft_cap, &S::sinks,
             &S::alibi_slopes);
KVANT_STRUCT(kvant_profile_entry, &S::label, &S::count, &S::microseconds);
KVANT_STRUCT(kvant_build_info, &S::version, &S::commit, &S::compiler, &S::sanitizers, &S::shader_set, &S::missing_modules);
KVANT_STRUCT(kvant_vulkan_device_args, &S::get_instance_proc_addr, &S::instance, &S::physical_device, &S::device,
             &S::queue_family, &S::queue_index, &S::enabled_extension_count, &S::reserved, &S::enabled_extensions,
             &S::enabled_features, &S::lock_queue, &S::unlock_queue, &S::user_data, &S::options);
KVANT_STRUCT(kvant_vulkan_record, &S::type, &S::flags, &S::command_buffer);
KVANT_STRUCT(kvant_state_args, &S::sequences, &S::sequence_count, &S::flags);
KVANT_STRUCT(kvant_state_stream, &S::user_data, &S::write, &S::read);
KVANT_STRUCT(kvant_event, &S::number, &S::time_ms, &S::a, &S::b, &S::sequence, &S::kind, &S::reserved);
KVANT_STRUCT(kvant_store_options, &S::cold_cache, &S::policy, &S::promote_uses, &S::reserved);
KVANT_STRUCT(kvant_store_args, &S::tokens, &S::token_count, &S::salt, &S::salt_size, &S::batch, &S::layer, &S::k, &S::v,
             &S::k_batch_stride, &S::v_batch_stride);
KVANT_STRUCT(kvant_store_stats, &S::puts, &S::lookups, &S::hits, &S::prefixes, &S::cold_prefixes, &S::evicted, &S::demoted,
             &S::promoted);
KVANT_STRUCT(kvant_tier_functions, &S::user_data, &S::name, &S::put, &S::get, &S::contains, &S::erase, &S::clear);
KVANT_STRUCT(kvant_tier_args, &S::kind, &S::timeout_ms, &S::capacity_bytes, &S::location, &S::functions);
KVANT_STRUCT(kvant_tiers_args, &S::tier_count, &S::tier_stride, &S::tiers, &S::format_k, &S::format_v, &S::store_after_uses,
             &S::flags, &S::min_tokens, &S::queue_bytes);
KVANT_STRUCT(kvant_memory_args, &S::limit_bytes, &S::formats, &S::format_count, &S::flags, &S::sinks, &S::recent);
KVANT_STRUCT(kvant_prune_args, &S::keep_tokens, &S::sinks, &S::recent);
KVANT_STRUCT(kvant_cool_args, &S::target_bytes, &S::formats, &S::format_count, &S::sinks, &S::recent, &S::reserved);
KVANT_STRUCT(kvant_rotation, &S::frequencies, &S::pair_count, &S::flags);
KVANT_STRUCT(kvant_config, &S::preset, &S::capacity_tokens, &S::memory_limit_bytes, &S::preallocate_bytes, &S::slab_bytes,
             &S::format_k, &S::format_v, &S::model_id, &S::page_tokens, &S::window, &S::window_sinks, &S::prefix_cache,
             &S::events, &S::attention_mass, &S::policy, &S::tiers, &S::hybrid, &S::monitor, &S::accuracy);
#undef KVANT_STRUCT

inline constexpr std::size_t kHeaderBytes = sizeof(std::size_t) + sizeof(void*);  // struct_size and next

// struct_size of the struct at `p`, checked. `name` is the argument's name in messages.
template <typename T>
Status check_size(const T* p, std::string_view name, std::size_t& size) {
  if (p == nullptr) return invalid(name, " is NULL; expected a ", StructFields<T>::name);
  std::memcpy(&size, p, sizeof size);
  if (size < kHeaderBytes)
    return invalid(name, ".struct_size (", size, ") is less than ", kHeaderBytes, "; expected sizeof(", StructFields<T>::name,
                   "), ", sizeof(T), " in version ", KVANT_VERSION >> 16, ".", KVANT_VERSION & 0xFFFFu);
  return {};
}

// Calls f(offset, bytes) for struct_size's and next's successors: all fields that lie inside `size`.
template <typename T, typename F>
void for_fields_inside(std::size_t size, F&& f) {
  T layout{};
  const auto one = [&](auto member) {
    const auto offset =
        static_cast<std::size_t>(reinterpret_cast<const char*>(&(layout.*member)) - reinterpret_cast<const char*>(&layout));
    if (offset + sizeof(layout.*member) <= size) f(offset, sizeof(layout.*member));
  };
  std::apply([&](auto... members) { (one(members), ...); }, StructFields<T>::members);
}

// Copies what lies inside struct_size; the rest of `out` is zero. out.struct_size keeps the caller's size.
template <typename T>
Status read_struct(const T* in, std::string_view name, T& out) {
  std::size_t size = 0;
  KVANT_TRY(check_size(in, name, size));
  T result{};
  result.struct_size = size;
  std::memcpy(&result.next, reinterpret_cast<const char*>(in) + sizeof size, sizeof result.next);
  for_fields_inside<T>(size, [&](std::size_t offset, std::size_t bytes) {
    std::memcpy(reinterpret_cast<char*>(&result) + offset, reinterpret_cast<const char*>(in) + offset, bytes);
  });
  out = result;
  return {};
}

// Writes the fields of `values` that lie inside the caller's struct_size; struct_size and next stay.
template <typename T>
void write_struct(T* out, const T& values) {
  std::size_t size = 0;
  std::memcpy(&size, out, sizeof size);
  for_fields_inside<T>(size, [&](std::size_t offset, std::size_t bytes) {
    std::memcpy(reinterpret_cast<char*>(out) + offset, reinterpret_cast<const char*>(&values) + offset, bytes);
  });
}

}  // namespace kvant::abi
