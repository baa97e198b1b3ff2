// Where an attention's keys and values lie as pages.
#include <algorithm>

#include "attention.hpp"
#include "planar.hpp"

namespace kvant::ggml {

namespace {

PageRows side_of(const Attention& a, const AttentionPages& pages, int side) {
  return {side == 0 ? a.format_k : a.format_v, side == 0 ? a.dim_k : a.dim_v, a.kv_heads, pages.tokens, pages.page_bytes[side]};
}

// How many pages a slab takes: all, or a multiple of kAlignedPages that can be bound.
void cut(AttentionPages& pages, const ExecutorLimits& limits) {
  const std::uint64_t most = limits.max_binding_bytes / std::max(pages.page_bytes[0], pages.page_bytes[1]);
  pages.per_slab = static_cast<std::uint32_t>(most >= pages.total ? pages.total : most / kAlignedPages * kAlignedPages);
  pages.slabs = pages.per_slab == 0 ? 0 : (pages.total + pages.per_slab - 1) / pages.per_slab;
}

std::optional<AttentionPages> planar_pages(Work& work, const Attention& a) {
  const auto k = work.planar().view(a.k, work.executor().limits()), v = work.planar().view(a.v, work.executor().limits());
  if (!k || !v || k->first_page != v->first_page || k->sequence_pages != v->sequence_pages || k->tensor->page_tokens != v->tensor->page_tokens)
    return std::nullopt;
  AttentionPages pages;
  pages.tokens = k->tensor->page_tokens;
  pages.page_bytes[0] = k->tensor->page_bytes();
  pages.page_bytes[1] = v->tensor->page_bytes();
  for (int side = 0; side < 2; ++side) {
    const PlanarTensor& t = *(side == 0 ? k : v)->tensor;
    pages.region[side] = {t.buffer, t.offset, t.bytes};
  }
  pages.first = k->first_page;
  pages.per_sequence = (a.keys + pages.tokens - 1) / pages.tokens;
  pages.sequence_pages = k->sequence_pages;
  pages.total = static_cast<std::uint32_t>(std::min(k->tensor->bytes / pages.page_bytes[0], v->tensor->bytes / pages.page_bytes[1]));
  cut(pages, work.executor().limits());
  if (pages.per_slab == 0) return std::nullopt;
  return pages;
}

}  // namespace

BufferRange AttentionPages::slab(int side, std::uint32_t index) const {
  const std::uint64_t bytes = page_bytes[side] * per_slab, begin = bytes * index;
  return {region[side].buffer, region[side].offset + begin, std::min(bytes, page_bytes[side] * total - begin)};
}

AttentionPages scratch_pages(const Attention& a, const ExecutorLimits& limits) {
  AttentionPages pages;
  pages.tokens = kPageTokens;
  pages.page_bytes[0] = std::uint64_t{page_layout(format_info(a.format_k), a.dim_k, kPageTokens).head_bytes} * a.kv_heads;
  pages.page_bytes[1] = std::uint64_t{page_layout(format_info(a.format_v), a.dim_v, kPageTokens).head_bytes} * a.kv_heads;
  pages.per_sequence = pages.sequence_pages = (a.keys + kPageTokens - 1) / kPageTokens;
  pages.total = pages.per_sequence * a.sequences;
  cut(pages, limits);
  return pages;
}

Result<AttentionPages> pages_for(Work& work, const Attention& a) {
  if (auto pages = planar_pages(work, a)) return *pages;
  for (const ggml_tensor* side : {a.k, a.v}) KVANT_TRY(work.planar().settle(work, side));
  AttentionPages pages = scratch_pages(a, work.executor().limits());
  for (int side = 0; side < 2; ++side) {
    const Scratch which = side == 0 ? Scratch::keys : Scratch::values;
    KVANT_ASSIGN(pages.region[side], work.scratch(which, pages.page_bytes[side] * pages.total));
  }
  bool barrier = true;
  for (int side = 0; side < 2; ++side) {
    const ggml_tensor* t = side == 0 ? a.k : a.v;
    for (std::uint32_t s = 0; s < a.sequences; ++s)
      KVANT_TRY(record_page_rows(work, KernelId::import, side_of(a, pages, side), a.keys, buffer_id(t), offset_of(t) + s * t->nb[3],
                                 {t->nb[1], t->nb[2]}, pages.region[side], s * pages.per_sequence, &barrier));
  }
  return pages;
}

}  // namespace kvant::ggml
