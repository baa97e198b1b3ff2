// FLASH_ATTN_EXT: K and V are brought into planar pages (import), then attended to by the modules that tuning chooses, with ggml's
// additive mask.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats.hpp"
#include "geometry.hpp"
#include "operations.hpp"
#include "params/attend.h"
#include "params/grids.h"
#include "params/strided.h"

namespace kvant::ggml {

namespace {

constexpr std::uint32_t kPageTokens = 32;
constexpr std::uint32_t kMaxHeadDim = 576;
constexpr std::uint64_t kPartialBytes = 64ull << 20;

// The facts of a FLASH_ATTN_EXT node.
struct Attention {
  const ggml_tensor *q, *k, *v, *mask, *sinks, *out;
  FormatId format_k{}, format_v{};
  std::uint32_t dim_k = 0, dim_v = 0, queries = 0, q_heads = 0, kv_heads = 0, keys = 0, sequences = 0;
  float scale = 1.0f, max_bias = 0.0f, soft_cap = 0.0f;
};

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

// How K's and V's pages lie in scratch memory: page ids of both sides agree.
struct Pages {
  PageLayout layout[2];
  std::uint64_t page_bytes[2], slab_bytes[2];
  std::uint32_t per_sequence = 0, total = 0, per_slab = 0, slabs = 0;
};

Pages pages_of(const Attention& a, const ExecutorLimits& limits) {
  Pages p;
  p.layout[0] = page_layout(format_info(a.format_k), a.dim_k, kPageTokens);
  p.layout[1] = page_layout(format_info(a.format_v), a.dim_v, kPageTokens);
  for (int side = 0; side < 2; ++side) p.page_bytes[side] = std::uint64_t{p.layout[side].head_bytes} * a.kv_heads;
  p.per_sequence = (a.keys + kPageTokens - 1) / kPageTokens;
  p.total = p.per_sequence * a.sequences;
  const std::uint64_t most = limits.max_binding_bytes / std::max(p.page_bytes[0], p.page_bytes[1]);
  p.per_slab = static_cast<std::uint32_t>(std::min<std::uint64_t>(most, p.total));
  p.slabs = p.per_slab == 0 ? 0 : (p.total + p.per_slab - 1) / p.per_slab;
  for (int side = 0; side < 2; ++side) p.slab_bytes[side] = (p.page_bytes[side] * p.per_slab + 255) / 256 * 256;
  return p;
}

template <typename Params>
Dispatch& add(Work& work, KernelId kernel, const char* label, bool barrier, const Params& params) {
  static_assert(sizeof(Params) <= kMaxPushBytes);
  Dispatch& dispatch = work.list().add_dispatch(kernel, label, barrier);
  std::memcpy(dispatch.push.data(), &params, sizeof params);
  return dispatch;
}

// One side of K and V into its pages: a dispatch for each run of tokens of one sequence in one slab, as long as can be bound.
Status import_side(Work& work, const Attention& a, const Pages& p, int side, const BufferRange& region, bool* barrier) {
  const ggml_tensor* t = side == 0 ? a.k : a.v;
  const FormatId format = side == 0 ? a.format_k : a.format_v;
  const std::uint32_t dim = side == 0 ? a.dim_k : a.dim_v;
  const ExecutorLimits& limits = work.executor().limits();
  const std::uint32_t local = work.executor().page_kernel_config(KernelId::import).local_size;
  const std::uint64_t row = canonical_row_bytes(format_info(format), dim);
  const std::uint64_t heads = (a.kv_heads - 1) * t->nb[2] + row;
  const std::uint64_t bindable = limits.max_binding_bytes - limits.binding_alignment - 4;
  const std::uint64_t longest = heads > bindable ? 0 : (bindable - heads) / std::max<std::uint64_t>(t->nb[1], 1) + 1;
  const auto most = static_cast<std::uint32_t>(std::min<std::uint64_t>(longest, a.keys)) / kPageTokens * kPageTokens;
  const std::uint32_t run = longest >= a.keys ? a.keys : most;
  if (run == 0) return {StatusCode::resource_exhausted, "a page of this tensor cannot be bound"};
  for (std::uint32_t s = 0; s < a.sequences; ++s) {
    for (std::uint32_t token = 0; token < a.keys;) {
      const std::uint32_t page = s * p.per_sequence + token / kPageTokens;
      const std::uint32_t slab = page / p.per_slab, in_slab = page % p.per_slab;
      const std::uint32_t count = std::min({run, a.keys - token, (p.per_slab - in_slab) * kPageTokens});
      const Window source =
          work.window(buffer_id(t), offset_of(t) + s * t->nb[3] + std::uint64_t{token} * t->nb[1], (count - 1) * t->nb[1] + heads);
      params::ImportParams params{};
      params.tokens = count;
      params.kv_heads = a.kv_heads;
      params.src_offset = source.skipped;
      params.token_stride = static_cast<std::uint32_t>(t->nb[1]);
      params.head_stride = static_cast<std::uint32_t>(t->nb[2]);
      params.first_page = in_slab;
      Dispatch& dispatch = add(work, KernelId::import, "import", *barrier, params);
      *barrier = false;
      dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local;
      dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(format);
      dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = dim;
      dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = kPageTokens;
      dispatch.bindings[0] = {region.buffer, slab * p.slab_bytes[side], p.slab_bytes[side]};
      dispatch.bindings[1] = source.range;
      dispatch.groups = params::import_grid(count, a.kv_heads, dim, 1, local, limits.max_groups[0]);
      token += count;
    }
  }
  return {};
}

// Per query head: sink logits, then ALiBi slopes.
void fill_heads(Work& work, const Attention& a, const BufferRange& staged, std::uint32_t slopes_word, const BufferRange& heads) {
  const std::uint64_t bytes = std::uint64_t{a.q_heads} * sizeof(float);
  work.list().add_copy({buffer_id(a.sinks), offset_of(a.sinks), heads.buffer, 0, bytes}, "sinks", true);
  if (a.max_bias != 0.0f)
    work.list().add_copy({staged.buffer, staged.offset + slopes_word * 4ull, heads.buffer, bytes, bytes}, "slopes", false);
}

std::vector<float> slopes_of(const Attention& a) {
  std::vector<float> slopes(a.q_heads);
  const std::uint32_t power = 1u << static_cast<std::uint32_t>(std::log2(static_cast<float>(a.q_heads)));
  const float even = std::exp2(-a.max_bias / static_cast<float>(power));
  const float odd = std::exp2(-a.max_bias / 2.0f / static_cast<float>(power));
  for (std::uint32_t h = 0; h < a.q_heads; ++h)
    slopes[h] = h < power ? std::pow(even, static_cast<float>(h + 1)) : std::pow(odd, static_cast<float>(2 * (h - power) + 1));
  return slopes;
}

// The tables of a call: sequences, pages, items, merges, slopes; offsets in words.
struct Tables {
  std::vector<std::uint32_t> words;
  template <typename T>
  std::uint32_t append(std::span<const T> values) {
    words.resize((words.size() + 7) / 8 * 8);
    const auto at = static_cast<std::uint32_t>(words.size());
    words.resize(at + (values.size_bytes() + 3) / 4);
    if (!values.empty()) std::memcpy(words.data() + at, values.data(), values.size_bytes());
    return at;
  }
};

// What the dispatches of one call have in common.
struct Call {
  const Attention& a;
  const Pages& pages;
  const AttendPlan& plan;
  AttendConfig config;
  std::uint32_t flags = 0, items_offset = 0, merges_offset = 0;
  BufferRange meta{}, keys{}, values{}, partial{}, heads{}, out{};
  Window q{}, bias{};
  params::AttendParams params{};
};

void record_merges(Work& work, const Call& call, const AttendPass& pass) {
  params::MergeParams merge{};
  merge.items_offset = call.merges_offset;
  merge.q_heads = call.a.q_heads;
  merge.partial_lse_offset = call.params.partial_lse_offset;
  merge.out_offset = call.params.out_offset;
  merge.out_token_stride = call.params.out_token_stride;
  merge.out_head_stride = call.params.out_head_stride;
  merge.sinks_offset = call.params.sinks_offset;
  for (std::uint32_t done = 0; done < pass.merge_count;) {
    const std::uint32_t count = std::min(pass.merge_count - done, work.executor().limits().max_groups[0]);
    merge.item_begin = pass.merge_begin + done;
    Dispatch& dispatch = add(work, KernelId::attend_merge, "attend_merge", done == 0, merge);
    dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = work.executor().page_kernel_config(KernelId::attend_merge).local_size;
    dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = call.a.dim_v;
    dispatch.spec[KVANT_SPEC_IO_TYPE_OUT] = KVANT_IO_F32;
    dispatch.spec[KVANT_SPEC_FLAGS] = call.flags;
    dispatch.bindings[0] = call.partial;
    dispatch.bindings[1] = call.out;
    dispatch.bindings[2] = call.meta;
    dispatch.bindings[3] = call.heads;
    dispatch.groups = {count, call.a.q_heads, 1};
    done += count;
  }
}

void record_items(Work& work, Call& call) {
  const Attention& a = call.a;
  const AttendConfig& config = call.config;
  const std::uint32_t tiles = (a.q_heads / a.kv_heads + config.heads_per_tile - 1) / config.heads_per_tile;
  for (const AttendPass& pass : call.plan.passes) {
    bool barrier = true;
    for (const SlabItems& items : std::span(call.plan.slabs).subspan(pass.slab_begin, pass.slab_count)) {
      for (std::uint32_t done = 0; done < items.item_count;) {
        const std::uint32_t count = std::min(items.item_count - done, work.executor().limits().max_groups[0]);
        call.params.item_begin = items.item_begin + done;
        call.params.page_begin = items.slab == kNoSlab ? 0 : items.slab * call.pages.per_slab;
        Dispatch& dispatch = add(work, config.kernel, kernel_info(config.kernel).name.data(), barrier, call.params);
        barrier = false;
        dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = config.local_size;
        dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(a.format_k);
        dispatch.spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(a.format_v);
        dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = a.dim_k;
        dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = a.dim_v;
        dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = kPageTokens;
        dispatch.spec[KVANT_SPEC_IO_TYPE_IN] = KVANT_IO_F32;
        dispatch.spec[KVANT_SPEC_IO_TYPE_OUT] = KVANT_IO_F32;
        dispatch.spec[KVANT_SPEC_FLAGS] = call.flags;
        dispatch.spec[KVANT_SPEC_HEADS_PER_TILE] = config.heads_per_tile;
        dispatch.spec[KVANT_SPEC_QUERIES_PER_ITEM] = config.queries_per_item;
        dispatch.spec[KVANT_SPEC_KV_PER_ITEM] = config.kv_per_item;
        dispatch.spec[KVANT_SPEC_SUBGROUP_SIZE] = config.subgroup_size;
        for (std::size_t t = 0; t < config.tune.size(); ++t) dispatch.spec[KVANT_SPEC_TUNE0 + t] = config.tune[t];
        if (items.slab != kNoSlab) {
          dispatch.bindings[0] = {call.keys.buffer, items.slab * call.pages.slab_bytes[0], call.pages.slab_bytes[0]};
          dispatch.bindings[1] = {call.values.buffer, items.slab * call.pages.slab_bytes[1], call.pages.slab_bytes[1]};
        }
        dispatch.bindings[2] = call.q.range;
        dispatch.bindings[3] = call.out;
        dispatch.bindings[4] = call.meta;
        if (pass.partial_rows != 0) dispatch.bindings[5] = call.partial;
        dispatch.bindings[6] = call.heads;
        dispatch.bindings[7] = call.bias.range;
        dispatch.groups = {count, a.kv_heads * tiles, 1};
        done += count;
      }
    }
    record_merges(work, call, pass);
  }
}

// Attention of sequences [first, first + count), whose query rows follow one another in Q by its token stride, as they do in OUT.
Status attend(Work& work, const Attention& a, const Pages& pages, std::uint32_t first, std::uint32_t count, const BufferRange& keys,
              const BufferRange& values) {
  const ExecutorLimits& limits = work.executor().limits();
  GroupGeometry group;
  group.kv_heads = a.kv_heads;
  group.head_dim_k = a.dim_k;
  group.head_dim_v = a.dim_v;
  group.total_pages = pages.total;
  group.pages_per_slab = pages.per_slab;
  group.slab_count = pages.slabs;
  const Window bias = a.mask != nullptr ? work.window(buffer_id(a.mask), offset_of(a.mask), ggml_nbytes(a.mask)) : Window{};
  GroupBatch batch;
  for (std::uint32_t s = 0; s < count; ++s) {
    params::AttendSeq seq{};
    seq.kv_len = a.keys;
    seq.page_begin = static_cast<std::uint32_t>(batch.pages.size());
    seq.q_begin = s * a.queries;
    seq.q_len = a.queries;
    if (a.mask != nullptr)
      seq.mask_offset =
          static_cast<std::uint32_t>((bias.skipped + (first + s) % static_cast<std::uint64_t>(a.mask->ne[3]) * a.mask->nb[3]) / 2);
    for (std::uint32_t page = 0; page < pages.per_sequence; ++page)
      batch.pages.push_back(static_cast<std::int32_t>((first + s) * pages.per_sequence + page));
    batch.page_counts.push_back(pages.per_sequence);
    batch.seqs.push_back(seq);
  }
  AttendShape shape;
  shape.format_k = static_cast<std::uint32_t>(a.format_k);
  shape.format_v = static_cast<std::uint32_t>(a.format_v);
  shape.head_dim_k = a.dim_k;
  shape.head_dim_v = a.dim_v;
  shape.group = a.q_heads / a.kv_heads;
  shape.kv_heads = a.kv_heads;
  shape.max_queries = a.queries;
  shape.total_queries = a.queries * count;
  shape.max_kv_len = a.keys;
  shape.total_kv_len = std::uint64_t{a.keys} * count;
  shape.page_tokens = kPageTokens;

  AttendPlan plan;
  Call call{.a = a, .pages = pages, .plan = plan, .config = work.executor().attend_config(shape)};
  const std::uint64_t row_bytes = (std::uint64_t{a.dim_v} + 1) * sizeof(float);
  AttendRequest request;
  request.q_heads = a.q_heads;
  request.causal = false;
  request.queries_per_item = call.config.queries_per_item;
  request.kv_per_item = call.config.kv_per_item;
  request.kv_split = call.config.kv_split;
  request.partial_rows = std::min(kPartialBytes, limits.max_binding_bytes) / row_bytes;
  work.planner().plan(batch, group, kPageTokens, request, plan);
  const std::uint64_t partial_bytes = plan.max_partial_rows * row_bytes;
  if (partial_bytes > limits.max_binding_bytes) return {StatusCode::resource_exhausted, "partial results cannot be bound"};
  if (partial_bytes != 0) {
    KVANT_ASSIGN(call.partial, work.scratch(Scratch::partial, partial_bytes));
  }

  Tables tables;
  call.params.seqs_offset = tables.append(std::span<const params::AttendSeq>(batch.seqs));
  call.params.pages_offset = tables.append(std::span<const std::int32_t>(batch.pages));
  call.params.items_offset = tables.append(std::span<const params::AttendItem>(plan.items));
  call.merges_offset = tables.append(std::span<const params::MergeItem>(plan.merges));
  std::uint32_t slopes_word = 0;
  if (a.max_bias != 0.0f) slopes_word = tables.append(std::span<const float>(slopes_of(a)));
  // Scratch memory first: what was uploaded must be used before the next submit.
  if (a.sinks != nullptr) {
    KVANT_ASSIGN(call.heads, work.scratch(Scratch::heads, 2ull * a.q_heads * sizeof(float)));
  }
  KVANT_ASSIGN(call.meta, work.upload(tables.words));
  if (a.sinks != nullptr)
    fill_heads(work, a, call.meta, slopes_word, call.heads);
  else if (a.max_bias != 0.0f)
    call.heads = call.meta;

  call.bias = bias;
  call.keys = keys;
  call.values = values;
  call.q = work.window(buffer_id(a.q), offset_of(a.q) + first * a.q->nb[3],
                       (count - 1) * a.q->nb[3] + (a.queries - 1) * a.q->nb[1] + (a.q_heads - 1) * a.q->nb[2] + a.dim_k * 4ull);
  const Window out = work.window(buffer_id(a.out), offset_of(a.out) + first * a.out->nb[3], count * a.out->nb[3]);
  call.out = out.range;
  call.flags = (a.mask != nullptr ? KVANT_ATTEND_BIAS : 0u) | (a.max_bias != 0.0f ? KVANT_ATTEND_ALIBI : 0u) |
               (a.soft_cap != 0.0f ? KVANT_ATTEND_SOFT_CAP : 0u) | (a.sinks != nullptr ? KVANT_ATTEND_SINKS : 0u);
  params::AttendParams& p = call.params;
  p.q_heads = a.q_heads;
  p.kv_heads = a.kv_heads;
  p.q_offset = call.q.skipped / 4;
  p.q_token_stride = static_cast<std::uint32_t>(a.q->nb[1] / 4);
  p.q_head_stride = static_cast<std::uint32_t>(a.q->nb[2] / 4);
  p.out_offset = out.skipped / 4;
  p.out_token_stride = a.dim_v * a.q_heads;
  p.out_head_stride = a.dim_v;
  p.partial_lse_offset = static_cast<std::uint32_t>(plan.max_partial_rows * a.dim_v);
  p.sinks_offset = 0;
  p.slopes_offset = a.sinks != nullptr ? a.q_heads : slopes_word;
  p.scale = a.scale;
  p.soft_cap = a.soft_cap;
  if (a.mask != nullptr) {
    p.bias_query_stride = static_cast<std::uint32_t>(a.mask->nb[1] / 2);
    p.bias_head_stride = static_cast<std::uint32_t>(a.mask->nb[2] / 2);
    p.bias_heads = static_cast<std::uint32_t>(a.mask->ne[2]);
  }
  record_items(work, call);
  return {};
}

}  // namespace

bool supports_attention(const ggml_tensor* op, const ExecutorLimits& limits) {
  const auto a = parse(op);
  if (!a || a->queries > limits.max_groups[0] || a->q_heads > limits.max_groups[1]) return false;
  const Pages pages = pages_of(*a, limits);
  const std::uint64_t row = std::max(canonical_row_bytes(format_info(a->format_k), a->dim_k), canonical_row_bytes(format_info(a->format_v), a->dim_v));
  const std::uint64_t heads = (a->kv_heads - 1) * std::max<std::uint64_t>(a->k->nb[2], a->v->nb[2]) + row;
  const std::uint64_t page = kPageTokens * std::max<std::uint64_t>(a->k->nb[1], a->v->nb[1]) + heads;
  const std::uint64_t bindable = limits.max_binding_bytes - limits.binding_alignment - 4;
  for (const ggml_tensor* t : {a->q, a->out, a->mask})
    if (t != nullptr && ggml_nbytes(t) > bindable) return false;
  return pages.per_slab != 0 && page <= bindable;
}

Status record_attention(Work& work, const ggml_tensor* node) {
  const auto a = parse(node);
  if (!a) return {StatusCode::unimplemented, "this FLASH_ATTN_EXT was not said to be supported"};
  const Pages pages = pages_of(*a, work.executor().limits());
  BufferRange region[2];
  KVANT_ASSIGN(region[0], work.scratch(Scratch::keys, pages.slab_bytes[0] * pages.slabs));
  KVANT_ASSIGN(region[1], work.scratch(Scratch::values, pages.slab_bytes[1] * pages.slabs));
  bool barrier = true;
  for (int side = 0; side < 2; ++side) KVANT_TRY(import_side(work, *a, pages, side, region[side], &barrier));
  const bool together = a->sequences == 1 || a->q->nb[3] == a->queries * a->q->nb[1];
  for (std::uint32_t first = 0; first < a->sequences; first += together ? a->sequences : 1)
    KVANT_TRY(attend(work, *a, pages, first, together ? a->sequences : 1, region[0], region[1]));
  return {};
}

}  // namespace kvant::ggml
