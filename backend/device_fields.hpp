// The one list of DeviceSnapshot's fields: JSON key, member and how an override may change it. JSON and narrowing visit
// it.
#pragma once

#include "device_snapshot.hpp"

namespace kvant {

enum class NarrowRule : std::uint8_t {
  identity,  // may only be repeated
  at_most,   // numbers (and each element of an array) may fall
  at_least,  // numbers may rise: alignments, minima
  bits,      // bits may be cleared
  flag,      // true may become false
  subset,    // list elements may be left out
  within,    // the subgroup size: any power of two that the device lets us require
};

// Calls visit(key, member, rule) for every field; Snapshot is const or not.
template <typename Snapshot, typename Visitor>
void visit_snapshot_fields(Snapshot& s, Visitor&& visit) {
  using enum NarrowRule;
  visit("name", s.name, identity);
  visit("type", s.type, identity);
  visit("vendor_id", s.vendor_id, identity);
  visit("device_id", s.device_id, identity);
  visit("driver_id", s.driver_id, identity);
  visit("driver_version", s.driver_version, identity);
  visit("driver_name", s.driver_name, identity);
  visit("driver_info", s.driver_info, identity);
  visit("device_uuid", s.device_uuid, identity);
  visit("driver_uuid", s.driver_uuid, identity);
  visit("pipeline_cache_uuid", s.pipeline_cache_uuid, identity);
  visit("compute_units", s.compute_units, at_most);

  visit("api_version", s.api_version, at_most);
  visit("max_binding_bytes", s.max_binding_bytes, at_most);
  visit("max_allocation_bytes", s.max_allocation_bytes, at_most);
  visit("max_buffer_bytes", s.max_buffer_bytes, at_most);
  visit("max_allocations", s.max_allocations, at_most);
  visit("max_shared_bytes", s.max_shared_bytes, at_most);
  visit("max_invocations", s.max_invocations, at_most);
  visit("max_local_size", s.max_local_size, at_most);
  visit("max_groups", s.max_groups, at_most);
  visit("max_push_bytes", s.max_push_bytes, at_most);
  visit("max_storage_buffers", s.max_storage_buffers, at_most);
  visit("storage_alignment", s.storage_alignment, at_least);
  visit("copy_alignment", s.copy_alignment, at_least);
  visit("non_coherent_atom", s.non_coherent_atom, at_least);
  visit("timestamp_period", s.timestamp_period, identity);

  visit("subgroup_min_size", s.subgroup_min_size, at_least);
  visit("subgroup_max_size", s.subgroup_max_size, at_most);
  visit("max_workgroup_subgroups", s.max_workgroup_subgroups, at_most);
  visit("subgroup_ops", s.subgroup_ops, bits);
  visit("subgroup_in_compute", s.subgroup_in_compute, flag);
  visit("subgroup_size", s.subgroup_size,
        within);  // judged by the device's own control, so before it may be turned off
  visit("subgroup_size_control", s.subgroup_size_control, flag);
  visit("compute_full_subgroups", s.compute_full_subgroups, flag);

  visit("fp16", s.fp16, flag);
  visit("int8", s.int8, flag);
  visit("int16", s.int16, flag);
  visit("int64", s.int64, flag);
  visit("storage8", s.storage8, flag);
  visit("storage16", s.storage16, flag);
  visit("timeline", s.timeline, flag);
  visit("int_dot", s.int_dot, flag);
  visit("int_dot_accelerated", s.int_dot_accelerated, flag);
  visit("int_dot_mixed_accelerated", s.int_dot_mixed_accelerated, flag);
  visit("buffer_device_address", s.buffer_device_address, flag);
  visit("robust_buffer_access", s.robust_buffer_access, flag);
  visit("robustness2", s.robustness2, flag);
  visit("pipeline_robustness", s.pipeline_robustness, flag);
  visit("host_query_reset", s.host_query_reset, flag);
  visit("pipeline_statistics", s.pipeline_statistics, flag);
  visit("push_descriptor", s.push_descriptor, flag);
  visit("memory_budget", s.memory_budget, flag);
  visit("fp16_rte", s.fp16_rte, flag);
  visit("fp16_denorm_preserve", s.fp16_denorm_preserve, flag);
  visit("coopmat", s.coopmat, flag);
  visit("coopmat2", s.coopmat2, flag);

  visit("coopmat_shapes", s.coopmat_shapes, subset);
  visit("heaps", s.heaps, identity);
  visit("memory_types", s.memory_types, identity);
  visit("queue_families", s.queue_families, identity);
  visit("extensions", s.extensions, subset);
}

}  // namespace kvant
