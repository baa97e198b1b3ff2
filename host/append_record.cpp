#include "append_record.hpp"

#include <algorithm>
#include <cstring>

#include "params/grids.h"

namespace kvant {

void record_append(CommandList& list, const AppendCall& call, const Executor& executor, bool barrier) {
  const std::uint32_t block_k = format_info(call.format_k).block, block_v = format_info(call.format_v).block;
  const std::uint32_t local_size = executor.page_kernel_config(KernelId::append).local_size;
  const auto units = [&](std::uint32_t tokens) {
    return params::append_units(tokens, call.params.kv_heads, call.head_dim_k, block_k, call.head_dim_v, block_v);
  };
  const auto most_tokens = static_cast<std::uint32_t>(params::kMaxUnits / units(1));
  for (std::uint32_t done = 0; done < call.params.tokens;) {
    params::AppendParams part = call.params;
    part.tokens = std::min(call.params.tokens - done, most_tokens);
    part.slots_offset += done * part.slots_stride;
    part.k_offset += done * part.k_token_stride;
    part.v_offset += done * part.v_token_stride;
    Dispatch& dispatch = list.add_dispatch(KernelId::append, call.name, barrier);
    barrier = false;
    dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
    dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(call.format_k);
    dispatch.spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(call.format_v);
    dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = call.head_dim_k;
    dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = call.head_dim_v;
    dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = call.page_tokens;
    dispatch.spec[KVANT_SPEC_IO_TYPE_IN] = call.io_in;
    dispatch.spec[KVANT_SPEC_FLAGS] = call.flags;
    std::memcpy(dispatch.push.data(), &part, sizeof part);
    dispatch.bindings[0] = call.k;
    dispatch.bindings[1] = call.v;
    dispatch.bindings[2] = call.k_rows;
    dispatch.bindings[3] = call.v_rows;
    dispatch.bindings[4] = call.slots;
    dispatch.bindings[5] = call.mass;
    dispatch.bindings[6] = call.means;
    dispatch.groups = params::append_grid(part.tokens, part.kv_heads, call.head_dim_k, block_k, call.head_dim_v, block_v, local_size,
                                          executor.limits().max_groups[0]);
    if (!call.both_sides) dispatch.groups[1] = 1;
    done += part.tokens;
  }
}

}  // namespace kvant
