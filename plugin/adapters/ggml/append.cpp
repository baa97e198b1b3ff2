// SET_ROWS into a cache that lies in pages: the kernel that quantizes on append, one side, with ggml's indices as slots.
#include <algorithm>

#include "operations.hpp"
#include "page_rows.hpp"
#include "params/grids.h"
#include "params/pages.h"
#include "planar.hpp"

namespace kvant::ggml {

bool can_append(const PlanarTensors& planar, const ggml_tensor* op) {
  const PlanarTensor* t = planar.find(op);
  const ggml_tensor *source = op->src[0], *index = op->src[1];
  if (t == nullptr || planar.find(source) != nullptr) return false;
  const bool f32 = source->type == GGML_TYPE_F32, f16 = source->type == GGML_TYPE_F16;
  const bool rows = op->ne[0] == static_cast<std::int64_t>(t->heads) * t->head_dim && op->nb[1] == t->row_bytes && op->ne[2] == 1 && op->ne[3] == 1 &&
                    op->ne[1] % kPageTokens == 0 && (offset_of(op) - t->offset) % t->page_bytes() == 0;
  return rows && (f32 || f16) && rows_contiguous(source) && source->nb[1] % ggml_type_size(source->type) == 0 && source->ne[1] == index->ne[0];
}

Status record_append(Work& work, const ggml_tensor* op) {
  const PlanarTensor& t = *work.planar().find(op);
  const ggml_tensor *source = op->src[0], *index = op->src[1];
  if (ggml_nelements(source) == 0) return {};
  const ExecutorLimits& limits = work.executor().limits();
  const std::uint32_t local = work.executor().page_kernel_config(KernelId::append).local_size;
  const FormatInfo& format = format_info(t.format);
  const Window rows = work.window(source);
  const Window slots = work.window(index);
  const auto tokens = u32(source->ne[1]);
  const std::uint64_t bound = limits.max_binding_bytes / t.page_bytes(), begin = (offset_of(op) - t.offset) / t.page_bytes();
  const std::uint64_t end = begin + static_cast<std::uint64_t>(op->ne[1]) / kPageTokens;
  const std::uint64_t most = params::kMaxUnits / params::append_units(1, t.heads, t.head_dim, format.block, t.head_dim, format.block);
  bool barrier = true;
  for (std::uint64_t page = begin; page < end;) {
    // All that is left, or as much as leaves the next part aligned.
    const std::uint64_t base = page / kAlignedPages * kAlignedPages;
    const std::uint64_t stop = end - base <= bound ? end : base + bound / kAlignedPages * kAlignedPages;
    if (stop <= page) return {StatusCode::resource_exhausted, std::to_string(kAlignedPages) + " pages of " + std::to_string(t.page_bytes()) + " bytes cannot be bound"};
    for (std::uint32_t done = 0; done < tokens;) {
      const auto count = u32(std::min<std::uint64_t>(most, tokens - done));
      const auto element = u32(ggml_type_size(source->type));
      params::AppendParams p{};
      p.tokens = count;
      p.kv_heads = t.heads;
      // Slots count from the destination's first page, which may lie behind the first that is bound: below 0, in 32 bits.
      p.page_begin = u32(base - begin);
      p.page_count = u32(stop - base);
      p.slots_stride = u32(index->nb[0] / 4);
      p.slots_offset = slots.skipped / 4 + done * p.slots_stride;
      p.k_token_stride = u32(source->nb[1] / element);
      p.k_head_stride = t.head_dim;
      p.k_offset = rows.skipped / element + done * p.k_token_stride;
      Dispatch& dispatch = work.add(KernelId::append, "append", p, barrier);
      barrier = false;
      dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local;
      dispatch.spec[KVANT_SPEC_FORMAT_K] = dispatch.spec[KVANT_SPEC_FORMAT_V] = u32(t.format);
      dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = t.head_dim;
      dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = kPageTokens;
      dispatch.spec[KVANT_SPEC_IO_TYPE_IN] = source->type == GGML_TYPE_F32 ? KVANT_IO_F32 : KVANT_IO_F16;
      const BufferRange pages{t.buffer, t.offset + base * t.page_bytes(), (stop - base) * t.page_bytes()};
      dispatch.bindings[0] = dispatch.bindings[1] = pages;
      dispatch.bindings[2] = dispatch.bindings[3] = rows.range;
      dispatch.bindings[4] = slots.range;
      dispatch.groups = params::append_grid(count, t.heads, t.head_dim, format.block, t.head_dim, format.block, local, limits.max_groups[0]);
      dispatch.groups[1] = 1;  // one side
      done += count;
    }
    page = stop;
  }
  return {};
}

}  // namespace kvant::ggml
