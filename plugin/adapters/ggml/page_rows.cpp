#include "page_rows.hpp"

#include <algorithm>

#include "params/grids.h"
#include "params/strided.h"

namespace kvant::ggml {

Status record_page_rows(Work& work, KernelId kernel, const PageRows& side, std::uint32_t tokens, BufferId buffer, std::uint64_t offset,
                        const RowPlace& place, const BufferRange& pages, std::uint32_t first_page, bool* barrier) {
  const ExecutorLimits& limits = work.executor().limits();
  const std::uint32_t local = work.executor().page_kernel_config(kernel).local_size;
  const std::uint64_t heads = (side.heads - 1) * place.head_stride + canonical_row_bytes(format_info(side.format), side.head_dim);
  const std::uint64_t bindable = bindable_bytes(limits);
  const std::uint64_t rows = heads > bindable ? 0 : (bindable - heads) / std::max<std::uint64_t>(place.token_stride, 1) + 1;
  const std::uint64_t bound_pages = limits.max_binding_bytes / side.page_bytes;
  for (std::uint32_t token = 0; token < tokens;) {
    const std::uint32_t page = first_page + token / side.page_tokens, base = page / kAlignedPages * kAlignedPages;
    const std::uint64_t room = bound_pages > page - base ? (bound_pages - (page - base)) * side.page_tokens : 0;
    std::uint64_t count = std::min({rows, room, std::uint64_t{tokens - token}});
    if (count < tokens - token) count = count / side.page_tokens * side.page_tokens;
    if (count == 0) return {StatusCode::resource_exhausted, "a page of " + std::to_string(side.page_bytes) + " bytes or its rows cannot be bound"};
    const auto run = u32(count);
    const Window window = work.window(buffer, offset + token * place.token_stride, (run - 1) * place.token_stride + heads);
    const std::uint64_t begin = base * side.page_bytes, end = (page + (run + side.page_tokens - 1) / side.page_tokens) * side.page_bytes;
    params::ImportParams params{};
    params.tokens = run;
    params.kv_heads = side.heads;
    params.offset = window.skipped;
    params.token_stride = u32(place.token_stride);
    params.head_stride = u32(place.head_stride);
    params.first_page = page - base;
    Dispatch& dispatch = work.add(kernel, kernel_info(kernel).name.data(), params, *barrier);
    *barrier = false;
    dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local;
    dispatch.spec[KVANT_SPEC_FORMAT_K] = u32(side.format);
    dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = side.head_dim;
    dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = side.page_tokens;
    dispatch.bindings[0] = {pages.buffer, pages.offset + begin, end - begin};
    dispatch.bindings[1] = window.range;
    dispatch.groups = params::import_grid(run, side.heads, side.head_dim, 1, local, limits.max_groups[0]);
    token += run;
  }
  return {};
}

}  // namespace kvant::ggml
