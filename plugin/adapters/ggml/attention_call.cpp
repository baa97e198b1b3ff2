// One attention call: its tables, what is bound, and its dispatches with ggml's additive mask.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "attend_record.hpp"
#include "attention.hpp"
#include "params/attend.h"
#include "planar.hpp"

namespace kvant::ggml {

namespace {

constexpr std::uint64_t kPartialBytes = 64ull << 20;

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

GroupGeometry geometry_of(const Attention& a, const AttentionPages& pages) {
  GroupGeometry group;
  group.kv_heads = a.kv_heads;
  group.head_dim_k = a.dim_k;
  group.head_dim_v = a.dim_v;
  group.total_pages = pages.total;
  group.pages_per_slab = pages.per_slab;
  group.slab_count = pages.slabs;
  return group;
}

AttendShape shape_of(const Attention& a, const AttentionPages& pages, std::uint32_t sequences) {
  AttendShape shape;
  shape.format_k = static_cast<std::uint32_t>(a.format_k);
  shape.format_v = static_cast<std::uint32_t>(a.format_v);
  shape.head_dim_k = a.dim_k;
  shape.head_dim_v = a.dim_v;
  shape.group = a.q_heads / a.kv_heads;
  shape.kv_heads = a.kv_heads;
  shape.max_queries = a.queries;
  shape.total_queries = a.queries * sequences;
  shape.max_kv_len = a.keys;
  shape.total_kv_len = std::uint64_t{a.keys} * sequences;
  shape.page_tokens = pages.tokens;
  return shape;
}

GroupBatch batch_of(const Attention& a, const AttentionPages& pages, std::uint32_t first, std::uint32_t count, const Window& bias) {
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
      batch.pages.push_back(static_cast<std::int32_t>(pages.first + (first + s) * pages.sequence_pages + page));
    batch.page_counts.push_back(pages.per_sequence);
    batch.seqs.push_back(seq);
  }
  return batch;
}

void fill_params(AttendCall& call, const Attention& a, const Window& q, const Window& out, std::uint32_t slopes_word) {
  params::AttendParams& p = call.params;
  p.q_heads = a.q_heads;
  p.kv_heads = a.kv_heads;
  p.q_offset = q.skipped / 4;
  p.q_token_stride = static_cast<std::uint32_t>(a.q->nb[1] / 4);
  p.q_head_stride = static_cast<std::uint32_t>(a.q->nb[2] / 4);
  p.out_offset = out.skipped / 4;
  p.out_token_stride = a.dim_v * a.q_heads;
  p.out_head_stride = a.dim_v;
  p.slopes_offset = a.sinks != nullptr ? a.q_heads : slopes_word;
  p.scale = a.scale;
  p.soft_cap = a.soft_cap;
  if (a.mask == nullptr) return;
  p.bias_query_stride = static_cast<std::uint32_t>(a.mask->nb[1] / 2);
  p.bias_head_stride = static_cast<std::uint32_t>(a.mask->nb[2] / 2);
  p.bias_heads = static_cast<std::uint32_t>(a.mask->ne[2]);
}

}  // namespace

Status record_sequences(Work& work, const Attention& a, const AttentionPages& pages, std::uint32_t first, std::uint32_t count) {
  const ExecutorLimits& limits = work.executor().limits();
  const Window bias = a.mask != nullptr ? work.window(a.mask) : Window{};
  const GroupBatch batch = batch_of(a, pages, first, count, bias);
  AttendPlan plan;
  AttendCall call;
  call.plan = &plan;
  call.shape = shape_of(a, pages, count);
  call.config = work.executor().attend_config(call.shape);
  call.io_in = call.io_out = KVANT_IO_F32;
  call.merge_local_size = work.executor().page_kernel_config(KernelId::attend_merge).local_size;
  call.flags = (a.mask != nullptr ? KVANT_ATTEND_BIAS : 0u) | (a.max_bias != 0.0f ? KVANT_ATTEND_ALIBI : 0u) |
               (a.soft_cap != 0.0f ? KVANT_ATTEND_SOFT_CAP : 0u) | (a.sinks != nullptr ? KVANT_ATTEND_SINKS : 0u);
  const std::uint64_t row_bytes = (std::uint64_t{a.dim_v} + 1) * sizeof(float);
  AttendRequest request;
  request.q_heads = a.q_heads;
  request.causal = false;
  request.own = item_cut(call.config);
  request.partial_rows = std::min(kPartialBytes, limits.max_binding_bytes) / row_bytes;
  work.planner().plan(batch, geometry_of(a, pages), pages.tokens, request, plan);
  const std::uint64_t partial_bytes = plan.max_partial_rows * row_bytes;
  if (partial_bytes > limits.max_binding_bytes) return {StatusCode::resource_exhausted, "partial results cannot be bound"};

  Tables tables;
  call.params.seqs_offset = tables.append(std::span<const params::AttendSeq>(batch.seqs));
  call.params.pages_offset = tables.append(std::span<const std::int32_t>(batch.pages));
  call.params.items_offset = tables.append(std::span<const params::AttendItem>(plan.items));
  call.merges_offset = tables.append(std::span<const params::MergeItem>(plan.merges));
  std::uint32_t slopes_word = 0;
  if (a.max_bias != 0.0f) slopes_word = tables.append(std::span<const float>(slopes_of(a)));
  // Scratch memory first: what was uploaded must be used before the next submit.
  if (partial_bytes != 0) {
    KVANT_ASSIGN(call.partial, work.scratch(Scratch::partial, partial_bytes));
  }
  if (a.sinks != nullptr) {
    KVANT_ASSIGN(call.heads, work.scratch(Scratch::heads, 2ull * a.q_heads * sizeof(float)));
  }
  KVANT_ASSIGN(call.meta, work.upload(tables.words));
  if (a.sinks != nullptr)
    fill_heads(work, a, call.meta, slopes_word, call.heads);
  else if (a.max_bias != 0.0f)
    call.heads = call.meta;

  const Window q = work.window(buffer_id(a.q), offset_of(a.q) + first * a.q->nb[3],
                               (count - 1) * a.q->nb[3] + (a.queries - 1) * a.q->nb[1] + (a.q_heads - 1) * a.q->nb[2] + a.dim_k * 4ull);
  const Window out = work.window(buffer_id(a.out), offset_of(a.out) + first * a.out->nb[3], count * a.out->nb[3]);
  call.q = q.range;
  call.out = out.range;
  call.merge_heads = call.heads;
  call.lse_or_bias = bias.range;
  fill_params(call, a, q, out, slopes_word);
  record_attend(work.list(), call, [&pages, &a](std::uint32_t slab) {
    return AttendSlab{pages.slab(0, slab), pages.slab(1, slab), slab * pages.per_slab, a.format_k, a.format_v};
  }, limits);
  return {};
}

}  // namespace kvant::ggml
