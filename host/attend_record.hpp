// The dispatches of one attention call: items as the planner cut them, slab by slab and pass by pass, and the merges of their splits.
#pragma once

#include <functional>

#include "executor.hpp"
#include "formats.hpp"
#include "planner.hpp"

namespace kvant {

// Where the keys and values of a slab lie, the first page's number, and what they are.
struct AttendSlab {
  BufferRange k, v;
  std::uint32_t first_page = 0;
  FormatId format_k{}, format_v{};
};

// What all dispatches of a call have in common. Offsets within `params`, `merges_offset` and `shared_seqs_offset` are words of `meta`.
struct AttendCall {
  const AttendPlan* plan = nullptr;
  AttendConfig config, shared_config;  // the latter for keys that sequences share, if the plan has such
  AttendShape shape;                // formats (where an item has no keys), head dimensions, heads and page_tokens are read
  std::uint32_t io_in = 0, io_out = 0;  // KVANT_IO_*
  std::uint32_t flags = 0;          // KVANT_ATTEND_*
  std::uint32_t merges_offset = 0, shared_seqs_offset = 0;
  std::uint32_t merge_local_size = 64;
  params::AttendParams params{};    // all but item_begin, page_begin and partial_lse_offset, which are set here
  BufferRange q, out, meta, partial, heads, lse_or_bias;
  BufferRange merge_lse;            // where the merges write log-sum-exps, if flags ask
  BufferRange merge_heads;          // sinks, by params.sinks_offset
  BufferRange merge_means;          // of V, if flags say that it is centred
};

// How the planner cuts items for that config.
inline ItemCut item_cut(const AttendConfig& config) { return {config.queries_per_item, config.kv_per_item, config.kv_split}; }

// The specialization constants of an attention kernel: all but KVANT_SPEC_IO_TYPE_*, which stay 0, f32.
SpecValues attend_spec(const AttendShape& shape, const AttendConfig& config, std::uint32_t flags);

// `slab`: of a slab's number; small enough for std::function to hold without memory. The first dispatch waits for all before it.
void record_attend(CommandList& list, const AttendCall& call, const std::function<AttendSlab(std::uint32_t)>& slab,
                   const ExecutorLimits& limits);

}  // namespace kvant
