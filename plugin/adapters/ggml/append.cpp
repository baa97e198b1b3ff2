// SET_ROWS into a cache that lies in pages: the kernel that quantizes on append, with ggml's indices as slots. K and V come as two operations, one after
// the other as a rule, and become one dispatch.
#include <algorithm>
#include <optional>
#include <utility>

#include "append_record.hpp"
#include "operations.hpp"
#include "page_rows.hpp"
#include "planar.hpp"

namespace kvant::ggml {

namespace {

bool apart(const BufferRange& a, const BufferRange& b) {
  return a.buffer != b.buffer || a.offset + a.size <= b.offset || b.offset + b.size <= a.offset;
}

// Both sides by one dispatch, where they differ in nothing but format, rows and slots, and all slots can be bound together.
std::optional<AppendCall> joined(const AppendCall& k, const AppendCall& v, const ExecutorLimits& limits) {
  const params::AppendParams &p = k.params, &q = v.params;
  const bool alike = p.tokens == q.tokens && p.kv_heads == q.kv_heads && p.page_begin == q.page_begin && p.page_count == q.page_count &&
                     p.slots_stride == q.slots_stride && k.page_tokens == v.page_tokens && k.io_in == v.io_in && k.slots.buffer == v.slots.buffer;
  const std::uint64_t begin = std::min(k.slots.offset, v.slots.offset);
  const std::uint64_t end = std::max(k.slots.offset + k.slots.size, v.slots.offset + v.slots.size);
  if (!alike || !apart(k.k, v.k) || end - begin > limits.max_binding_bytes) return std::nullopt;
  AppendCall both = k;
  both.both_sides = true;
  both.format_v = v.format_k;
  both.head_dim_v = v.head_dim_k;
  both.v = v.k;
  both.v_rows = v.k_rows;
  both.slots = {k.slots.buffer, begin, end - begin};
  both.params.v_offset = q.k_offset;
  both.params.v_token_stride = q.k_token_stride;
  both.params.v_head_stride = q.k_head_stride;
  both.params.slots_offset += u32((k.slots.offset - begin) / 4);
  both.params.v_slots_ahead = q.slots_offset + u32((v.slots.offset - begin) / 4) - both.params.slots_offset;
  return both;
}

}  // namespace

bool can_append(const PlanarTensors& planar, const ggml_tensor* op) {
  const PlanarTensor* t = planar.find(op);
  const ggml_tensor *source = op->src[0], *index = op->src[1];
  if (t == nullptr || planar.find(source) != nullptr) return false;
  const bool f32 = source->type == GGML_TYPE_F32, f16 = source->type == GGML_TYPE_F16;
  const bool rows = op->ne[0] == static_cast<std::int64_t>(t->heads) * t->head_dim && op->nb[1] == t->row_bytes && op->ne[2] == 1 && op->ne[3] == 1 &&
                    op->ne[1] % t->page_tokens == 0 && (offset_of(op) - t->offset) % t->page_bytes() == 0;
  return rows && (f32 || f16) && rows_contiguous(source) && source->nb[1] % ggml_type_size(source->type) == 0 && source->ne[1] == index->ne[0];
}

Status record_append(Work& work, const ggml_tensor* op) {
  const PlanarTensor& t = *work.planar().find(op);
  const ggml_tensor *source = op->src[0], *index = op->src[1];
  if (ggml_nelements(source) == 0) return {};
  const ExecutorLimits& limits = work.executor().limits();
  const Window rows = work.window(source);
  const Window slots = work.window(index);
  const std::uint64_t bound = limits.max_binding_bytes / t.page_bytes(), begin = (offset_of(op) - t.offset) / t.page_bytes();
  const std::uint64_t end = begin + static_cast<std::uint64_t>(op->ne[1]) / t.page_tokens;
  const auto element = u32(ggml_type_size(source->type));
  AppendCall call;
  call.format_k = call.format_v = t.format;
  call.head_dim_k = call.head_dim_v = t.head_dim;
  call.page_tokens = t.page_tokens;
  call.io_in = source->type == GGML_TYPE_F32 ? KVANT_IO_F32 : KVANT_IO_F16;
  call.both_sides = false;
  call.params.tokens = u32(source->ne[1]);
  call.params.kv_heads = t.heads;
  call.params.slots_stride = u32(index->nb[0] / 4);
  call.params.slots_offset = slots.skipped / 4;
  call.params.k_token_stride = u32(source->nb[1] / element);
  call.params.k_head_stride = t.head_dim;
  call.params.k_offset = rows.skipped / element;
  call.k_rows = call.v_rows = rows.range;
  call.slots = slots.range;
  bool barrier = true;
  for (std::uint64_t page = begin; page < end;) {
    // All that is left, or as much as leaves the next part aligned.
    const std::uint64_t base = page / kAlignedPages * kAlignedPages;
    const std::uint64_t stop = end - base <= bound ? end : base + bound / kAlignedPages * kAlignedPages;
    if (stop <= page) return {StatusCode::resource_exhausted, std::to_string(kAlignedPages) + " pages of " + std::to_string(t.page_bytes()) + " bytes cannot be bound"};
    // Slots count from the destination's first page, which may lie behind the first that is bound: below 0, in 32 bits.
    call.params.page_begin = u32(base - begin);
    call.params.page_count = u32(stop - base);
    call.k = call.v = {t.buffer, t.offset + base * t.page_bytes(), (stop - base) * t.page_bytes()};
    const bool whole = page == begin && stop == end;
    if (const AppendCall* before = whole ? work.lone_append() : nullptr) {
      if (const auto both = joined(*before, call, limits)) {
        work.list().commands.pop_back();
        kvant::record_append(work.list(), *both, work.executor(), true);
        return {};
      }
    }
    const std::size_t commands = work.list().commands.size();
    kvant::record_append(work.list(), call, work.executor(), std::exchange(barrier, false));
    if (whole && work.list().commands.size() == commands + 1) work.note_lone_append(call);
    page = stop;
  }
  return {};
}

}  // namespace kvant::ggml
