// SET_ROWS, GET_ROWS, CPY, CONT and DUP: elements of one tensor into another, through the kernel `transfer`, or as bytes where both lie
// alike.
#include <algorithm>
#include <limits>

#include "formats.hpp"
#include "operations.hpp"
#include "params/grids.h"
#include "params/strided.h"

namespace kvant::ggml {

namespace {

// What moves: `index` names rows of the side that `indexed` says (params/strided.h), or is null.
struct Transfer {
  const ggml_tensor *source, *destination, *index;
  bool source_indexed = false;
  FormatId from{}, to{};
};

std::optional<Transfer> parse(const ggml_tensor* op) {
  Transfer t{op->src[0], op, nullptr};
  if (op->op == GGML_OP_SET_ROWS || op->op == GGML_OP_GET_ROWS) {
    t.index = op->src[1];
    t.source_indexed = op->op == GGML_OP_GET_ROWS;
    if (t.index == nullptr || (t.index->type != GGML_TYPE_I32 && t.index->type != GGML_TYPE_I64)) return std::nullopt;
  }
  if (t.source == nullptr) return std::nullopt;
  // Integers of 32 bits move as they are.
  const bool integers = t.source->type == GGML_TYPE_I32 && t.destination->type == GGML_TYPE_I32;
  const auto from = integers ? FormatId::f32 : format_of(t.source->type), to = integers ? FormatId::f32 : format_of(t.destination->type);
  if (!from || !to) return std::nullopt;
  t.from = *from;
  t.to = *to;
  return t;
}

std::uint32_t unit_of(const Transfer& t) {
  if (in_blocks(t.source->type) || in_blocks(t.destination->type)) return 32;
  if (format_info(t.to).canonical_bytes != 2) return 1;
  const ggml_tensor* d = t.destination;
  const bool words = d->nb[0] == 2 && d->ne[0] % 2 == 0 && d->nb[1] % 4 == 0 && d->nb[2] % 4 == 0 && d->nb[3] % 4 == 0 &&
                     offset_of(d) % 4 == 0;
  return words ? 2 : 1;
}

bool shapes_agree(const Transfer& t) {
  const ggml_tensor *s = t.source, *d = t.destination;
  if (t.index == nullptr) return ggml_nelements(s) == ggml_nelements(d);
  // The side that is not looked up has a row for each index.
  const ggml_tensor *rows = t.source_indexed ? d : s, *table = t.source_indexed ? s : d;
  if (rows->ne[0] != table->ne[0] || rows->ne[1] != t.index->ne[0]) return false;
  if (t.index->ne[1] == 0 || t.index->ne[2] == 0 || rows->ne[2] % t.index->ne[1] != 0 || rows->ne[3] % t.index->ne[2] != 0) return false;
  return rows->ne[2] == table->ne[2] && rows->ne[3] == table->ne[3];
}

// The side that is looked up; null where there is none.
const ggml_tensor* table_of(const Transfer& t) {
  return t.index == nullptr ? nullptr : t.source_indexed ? t.source : t.destination;
}

// Tables of rows, one after the other, are bound in parts.
bool in_parts(const Transfer& t, const ggml_tensor* side) {
  return side == table_of(t) && side->ne[2] == 1 && side->ne[3] == 1 && rows_contiguous(side) &&
         side->nb[1] == ggml_row_size(side->type, side->ne[0]);
}

// One dispatch; of the side that is looked up, if there is one, `rows` from `first_row` on.
void record_part(Work& work, const Transfer& t, std::int64_t first_row, std::int64_t rows, bool barrier) {
  const ggml_tensor *s = t.source, *d = t.destination;
  const std::uint32_t unit = unit_of(t), index_words = t.index == nullptr ? 0 : t.index->type == GGML_TYPE_I64 ? 2 : 1;
  auto place = [&](const ggml_tensor* side) {
    if (side != table_of(t) || rows == side->ne[1]) return work.window(side);
    const auto first = static_cast<std::uint64_t>(first_row), count = static_cast<std::uint64_t>(rows);
    return work.window(buffer_id(side), offset_of(side) + first * side->nb[1], count * side->nb[1]);
  };
  // A source that is not looked up tells how many elements move.
  const std::int64_t elements = ggml_nelements(t.source_indexed ? d : s);
  const Window source = place(s), destination = place(d);
  params::TransferParams p{};
  p.units = u32(elements / unit);
  p.src_offset = source.skipped;
  p.src_ne0 = u32(s->ne[0]);
  p.src_ne1 = u32(s->ne[1]);
  p.src_ne2 = u32(s->ne[2]);
  p.src_nb0 = u32(s->nb[0]);
  p.dst_offset = destination.skipped;
  p.dst_ne0 = u32(d->ne[0]);
  p.dst_ne1 = u32(d->ne[1]);
  p.dst_ne2 = u32(d->ne[2]);
  p.dst_nb0 = u32(d->nb[0]);
  set_strides(p, s, d);
  Window index;
  if (t.index != nullptr) {
    index = work.window(t.index);
    p.indexed = t.source_indexed ? 1 : 0;
    p.first_row = u32(first_row);
    p.rows = u32(rows);
    // Coordinates are those of the rows that are named one by one.
    p.src_ne1 = p.dst_ne1 = t.source_indexed ? p.dst_ne1 : p.src_ne1;
    p.idx_offset = index.skipped / 4;
    p.idx_nb0 = u32(t.index->nb[0] / 4);
    p.idx_nb1 = u32(t.index->nb[1] / 4);
    p.idx_nb2 = u32(t.index->nb[2] / 4);
    p.idx_ne1 = u32(t.index->ne[1]);
    p.idx_ne2 = u32(t.index->ne[2]);
  }
  Dispatch& dispatch = work.add(KernelId::transfer, "transfer", p, barrier);
  const std::uint32_t local = work.executor().page_kernel_config(KernelId::transfer).local_size;
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local;
  dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(t.from);
  dispatch.spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(t.to);
  dispatch.spec[KVANT_SPEC_TRANSFER_UNIT] = unit;
  dispatch.spec[KVANT_SPEC_TRANSFER_INDEX] = index_words;
  dispatch.bindings[0] = source.range;
  dispatch.bindings[1] = destination.range;
  dispatch.bindings[2] = index.range;
  dispatch.groups = params::transfer_grid(p.units, local);
}

}  // namespace

bool supports_transfer(const ggml_tensor* op, const ExecutorLimits& limits) {
  const auto t = parse(op);
  if (!t || !shapes_agree(*t)) return false;
  if (t->index == nullptr && op->op != GGML_OP_CPY && op->op != GGML_OP_CONT && op->op != GGML_OP_DUP) return false;
  for (const ggml_tensor* side : {t->source, t->destination}) {
    if (in_blocks(side->type) && (side->ne[0] % 32 != 0 || !rows_contiguous(side))) return false;
    // Tables in parts may be of any size: llama.cpp also asks about caches that it then finds too large.
    if (in_parts(*t, side) ? side->nb[1] > bindable_bytes(limits) : ggml_nbytes(side) > bindable_bytes(limits)) return false;
    if (!in_parts(*t, side) && ggml_nelements(side) > std::numeric_limits<std::uint32_t>::max()) return false;
  }
  // Codes of one block format are never made from another's; nor from bf16, whose many ties ggml's CPU backend rounds another way than
  // its reference quantizers, which are followed here.
  if (t->from != t->to && in_blocks(t->destination->type) && t->from != FormatId::f32 && t->from != FormatId::f16) return false;
  return !t->index || ggml_nbytes(t->index) <= bindable_bytes(limits);
}

Status record_transfer(Work& work, const ggml_tensor* node) {
  const auto t = parse(node);
  if (!t) return {StatusCode::unimplemented, "this operation was not said to be supported"};
  if (node->op == GGML_OP_SET_ROWS) {
    if (can_append(work.planar(), node)) return record_append(work, node);
    for (const ggml_tensor* tensor : {t->source, t->destination, t->index}) KVANT_TRY(work.planar().settle(work, tensor));
  }
  const ggml_tensor *s = t->source, *d = t->destination;
  if (ggml_nelements(t->index != nullptr && !t->source_indexed ? s : d) == 0) return {};
  if (t->index == nullptr && t->from == t->to && ggml_is_contiguous(s) && ggml_is_contiguous(d)) {
    const std::uint64_t bytes = ggml_nbytes(s), from = offset_of(s), to = offset_of(d);
    if (buffer_id(s) != buffer_id(d) || from + bytes <= to || to + bytes <= from) {
      work.list().add_copy({buffer_id(s), from, buffer_id(d), to, bytes}, "copy", true);
    } else if (from != to) {  // Vulkan copies nothing onto itself
      KVANT_ASSIGN(const BufferRange rows, work.scratch(Scratch::rows, bytes));
      work.list().add_copy({buffer_id(s), from, rows.buffer, rows.offset, bytes}, "copy", true);
      work.list().add_copy({rows.buffer, rows.offset, buffer_id(d), to, bytes}, "copy", true);
    }
    return {};
  }
  const ggml_tensor* table = table_of(*t);
  const std::uint64_t bound = bindable_bytes(work.executor().limits());
  if (table == nullptr || ggml_nbytes(table) <= bound) {
    record_part(work, *t, 0, table == nullptr ? 0 : table->ne[1], true);
    return {};
  }
  const auto most = static_cast<std::int64_t>(bound / table->nb[1]);
  for (std::int64_t row = 0; row < table->ne[1]; row += most) record_part(work, *t, row, std::min(most, table->ne[1] - row), row == 0);
  return {};
}

}  // namespace kvant::ggml
