#include "attend_record.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <span>

#include "params/attend.h"

namespace kvant {

namespace {

void record_merges(CommandList& list, const AttendCall& call, const params::AttendParams& attend, const AttendPass& pass,
                   const ExecutorLimits& limits) {
  params::MergeParams merge{};
  merge.items_offset = call.merges_offset;
  merge.q_heads = attend.q_heads;
  merge.group = call.shape.group;
  merge.partial_lse_offset = attend.partial_lse_offset;
  merge.out_offset = attend.out_offset;
  merge.out_token_stride = attend.out_token_stride;
  merge.out_head_stride = attend.out_head_stride;
  merge.lse_offset = attend.lse_offset;
  merge.sinks_offset = attend.sinks_offset;
  for (std::uint32_t done = 0; done < pass.merge_count;) {
    const std::uint32_t count = std::min(pass.merge_count - done, limits.max_groups[0]);
    merge.item_begin = pass.merge_begin + done;
    Dispatch& dispatch = list.add_dispatch(KernelId::attend_merge, "attend_merge", done == 0);
    dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = call.merge_local_size;
    dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = call.shape.head_dim_v;
    dispatch.spec[KVANT_SPEC_IO_TYPE_OUT] = call.io_out;
    dispatch.spec[KVANT_SPEC_FLAGS] = call.flags;
    std::memcpy(dispatch.push.data(), &merge, sizeof merge);
    dispatch.bindings[0] = call.partial;
    dispatch.bindings[1] = call.out;
    dispatch.bindings[2] = call.meta;
    dispatch.bindings[3] = call.merge_heads;
    dispatch.bindings[4] = call.merge_lse;
    dispatch.bindings[5] = call.merge_means;
    dispatch.groups = {count, attend.q_heads, 1};
    done += count;
  }
}

}  // namespace

SpecValues attend_spec(const AttendShape& shape, const AttendConfig& config, std::uint32_t flags) {
  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = config.local_size;
  spec[KVANT_SPEC_FORMAT_K] = shape.format_k;
  spec[KVANT_SPEC_FORMAT_V] = shape.format_v;
  spec[KVANT_SPEC_HEAD_DIM_K] = shape.head_dim_k;
  spec[KVANT_SPEC_HEAD_DIM_V] = shape.head_dim_v;
  spec[KVANT_SPEC_PAGE_TOKENS] = shape.page_tokens;
  spec[KVANT_SPEC_FLAGS] = flags;
  spec[KVANT_SPEC_HEADS_PER_TILE] = config.heads_per_tile;
  spec[KVANT_SPEC_QUERIES_PER_ITEM] = config.queries_per_item;
  spec[KVANT_SPEC_KV_PER_ITEM] = config.kv_per_item;
  spec[KVANT_SPEC_SUBGROUP_SIZE] = config.subgroup_size;
  for (std::size_t t = 0; t < config.tune.size(); ++t) spec[KVANT_SPEC_TUNE0 + t] = config.tune[t];
  return spec;
}

void record_attend(CommandList& list, const AttendCall& call, const std::function<AttendSlab(std::uint32_t)>& slab,
                   const ExecutorLimits& limits) {
  assert(call.params.q_heads <= limits.max_groups[1]);
  params::AttendParams attend = call.params;
  attend.partial_lse_offset = static_cast<std::uint32_t>(call.plan->max_partial_rows * call.shape.head_dim_v);  // words of a binding
  for (const AttendPass& pass : call.plan->passes) {
    bool barrier = true;  // after what wrote the pages, and after the merges that read PARTIAL before
    for (const SlabItems& items : std::span(call.plan->slabs).subspan(pass.slab_begin, pass.slab_count)) {
      const AttendSlab place = items.slab == kNoSlab ? AttendSlab() : slab(items.slab);
      const AttendConfig& config = items.shared ? call.shared_config : call.config;
      const std::uint32_t tiles = (call.shape.group + config.heads_per_tile - 1) / config.heads_per_tile;
      assert(call.shape.kv_heads * tiles <= limits.max_groups[1]);
      SpecValues spec = attend_spec(call.shape, config, call.flags);
      spec[KVANT_SPEC_IO_TYPE_IN] = call.io_in;
      spec[KVANT_SPEC_IO_TYPE_OUT] = call.io_out;
      if (items.slab != kNoSlab) {
        spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(place.format_k);
        spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(place.format_v);
      }
      attend.seqs_offset = items.shared ? call.shared_seqs_offset : call.params.seqs_offset;
      attend.page_begin = place.first_page;
      for (std::uint32_t done = 0; done < items.item_count;) {
        const std::uint32_t count = std::min(items.item_count - done, limits.max_groups[0]);
        attend.item_begin = items.item_begin + done;
        Dispatch& dispatch = list.add_dispatch(config.kernel, kernel_info(config.kernel).name.data(), barrier);
        barrier = false;
        dispatch.spec = spec;
        std::memcpy(dispatch.push.data(), &attend, sizeof attend);
        dispatch.bindings[0] = place.k;
        dispatch.bindings[1] = place.v;
        dispatch.bindings[2] = call.q;
        dispatch.bindings[3] = call.out;
        dispatch.bindings[4] = call.meta;
        dispatch.bindings[5] = pass.partial_rows != 0 ? call.partial : BufferRange{};
        dispatch.bindings[6] = call.heads;
        dispatch.bindings[7] = call.lse_or_bias;
        dispatch.groups = {count, call.shape.kv_heads * tiles, 1};
        done += count;
      }
    }
    record_merges(list, call, attend, pass, limits);
  }
}

}  // namespace kvant
