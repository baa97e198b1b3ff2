// FLASH_ATTN_EXT: which nodes run here, and their recording.
#include <algorithm>
#include <cstring>
#include <limits>

#include "attention.hpp"
#include "planar.hpp"

namespace kvant::ggml {

namespace {

constexpr std::uint32_t kMaxHeadDim = 576;

float float_param(const ggml_tensor* op, int index) {
  float value = 0.0f;
  std::memcpy(&value, op->op_params + index, sizeof value);
  return value;
}

bool fits(std::int64_t value) { return value > 0 && value <= std::numeric_limits<std::int32_t>::max(); }

std::optional<Attention> parse(const ggml_tensor* op) {
  Attention a{op->src[0], op->src[1], op->src[2], op->src[3], op->src[4], op};
  for (const ggml_tensor* t : {a.q, a.k, a.v, a.out})
    if (t == nullptr || !fits(t->ne[0]) || !fits(t->ne[1]) || !fits(t->ne[2]) || !fits(t->ne[3])) return std::nullopt;
  const auto k = format_of(a.k->type), v = format_of(a.v->type);
  if (!k || !v || a.q->type != GGML_TYPE_F32 || a.out->type != GGML_TYPE_F32) return std::nullopt;
  a.format_k = *k;
  a.format_v = *v;
  a.dim_k = static_cast<std::uint32_t>(a.q->ne[0]);
  a.dim_v = static_cast<std::uint32_t>(a.v->ne[0]);
  a.queries = static_cast<std::uint32_t>(a.q->ne[1]);
  a.q_heads = static_cast<std::uint32_t>(a.q->ne[2]);
  a.sequences = static_cast<std::uint32_t>(a.q->ne[3]);
  a.keys = static_cast<std::uint32_t>(a.k->ne[1]);
  a.kv_heads = static_cast<std::uint32_t>(a.k->ne[2]);
  a.scale = float_param(op, 0);
  a.max_bias = float_param(op, 1);
  a.soft_cap = float_param(op, 2);
  const bool shapes = a.k->ne[0] == a.q->ne[0] && a.v->ne[1] == a.k->ne[1] && a.v->ne[2] == a.k->ne[2] && a.k->ne[3] == a.q->ne[3] &&
                      a.v->ne[3] == a.q->ne[3] && a.q_heads % a.kv_heads == 0;
  const bool sizes = a.dim_k % 8 == 0 && a.dim_v % 8 == 0 && a.dim_k <= kMaxHeadDim && a.dim_v <= kMaxHeadDim;
  const bool rows = rows_contiguous(a.q) && rows_contiguous(a.k) && rows_contiguous(a.v) && ggml_is_contiguous(a.out);
  if (!shapes || !sizes || !rows) return std::nullopt;
  if ((in_blocks(a.k->type) && a.dim_k % 32 != 0) || (in_blocks(a.v->type) && a.dim_v % 32 != 0)) return std::nullopt;
  if (a.mask != nullptr) {
    const bool mask = a.mask->type == GGML_TYPE_F16 && rows_contiguous(a.mask) && a.mask->ne[0] >= a.k->ne[1] &&
                      a.mask->ne[1] >= a.q->ne[1] && a.mask->ne[2] > 0 && a.q->ne[2] % a.mask->ne[2] == 0 && a.mask->ne[3] > 0 &&
                      a.q->ne[3] % a.mask->ne[3] == 0;
    if (!mask) return std::nullopt;
  } else if (a.max_bias != 0.0f) {
    return std::nullopt;
  }
  if (a.sinks != nullptr && (a.sinks->type != GGML_TYPE_F32 || !ggml_is_contiguous(a.sinks) || a.sinks->ne[0] != a.q->ne[2])) return std::nullopt;
  return a;
}

}  // namespace

bool supports_attention(const ggml_tensor* op, const ExecutorLimits& limits) {
  const auto a = parse(op);
  if (!a || a->queries > limits.max_groups[0] || a->q_heads > limits.max_groups[1]) return false;
  const AttentionPages pages = scratch_pages(*a, limits);
  const std::uint64_t row = std::max(canonical_row_bytes(format_info(a->format_k), a->dim_k), canonical_row_bytes(format_info(a->format_v), a->dim_v));
  const std::uint64_t heads = (a->kv_heads - 1) * std::max<std::uint64_t>(a->k->nb[2], a->v->nb[2]) + row;
  const std::uint64_t page = kPageTokens * std::max<std::uint64_t>(a->k->nb[1], a->v->nb[1]) + heads;
  const std::uint64_t bindable = bindable_bytes(limits);
  for (const ggml_tensor* t : {a->q, a->out, a->mask})
    if (t != nullptr && ggml_nbytes(t) > bindable) return false;
  // Pages in scratch memory must fit one buffer, unless the tensors will lie in pages themselves.
  const bool in_place = rows_are_heads(a->k, a->kv_heads, limits) && rows_are_heads(a->v, a->kv_heads, limits);
  const std::uint64_t scratch = std::max(pages.page_bytes[0], pages.page_bytes[1]) * pages.total;
  return pages.per_slab != 0 && page <= bindable && (in_place || scratch <= limits.max_slab_bytes);
}

Status record_attention(Work& work, const ggml_tensor* node) {
  const auto a = parse(node);
  if (!a) return {StatusCode::unimplemented, "this FLASH_ATTN_EXT was not said to be supported"};
  for (const ggml_tensor* other : {a->q, a->mask, a->sinks, a->out}) KVANT_TRY(work.planar().settle(work, other));
  KVANT_ASSIGN(const AttentionPages pages, pages_for(work, *a));
  const bool together = a->sequences == 1 || a->q->nb[3] == a->queries * a->q->nb[1];
  for (std::uint32_t first = 0; first < a->sequences; first += together ? a->sequences : 1)
    KVANT_TRY(record_sequences(work, *a, pages, first, together ? a->sequences : 1));
  return {};
}

}  // namespace kvant::ggml
