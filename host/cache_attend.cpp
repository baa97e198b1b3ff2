// CacheImpl: the attention of one layer: configs and items, shared by layers that ask the same, and their dispatches.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <span>

#include "layer_run.hpp"
#include "params/attend.h"

namespace kvant {
namespace {

// Sequences with at most this many queries (decoding, drafts) are tuned apart from prompts in the same step.
constexpr std::uint32_t kShortQueries = 8;
// With RunArgs::invariant: these many queries are computed one by one, their keys cut as for one sequence of a fixed length, so
// that no result depends on what else is in the step.
constexpr std::uint32_t kInvariantQueries = 32;
constexpr std::uint64_t kInvariantLength = 65536;
// Scratch for partial results: enough to keep any device busy; more queries take further passes.
constexpr std::uint64_t kPartialBytes = 64ull << 20;

std::uint32_t attend_flags(const RunArgs& args, const GroupGeometry& group, bool masked) {
  std::uint32_t flags = 0;
  if (args.causal) flags |= KVANT_ATTEND_CAUSAL;
  if (group.window != 0) flags |= KVANT_ATTEND_WINDOW;
  if (args.sinks != nullptr) flags |= KVANT_ATTEND_SINKS;
  if (args.alibi_slopes != nullptr) flags |= KVANT_ATTEND_ALIBI;
  if (args.soft_cap != 0.0f) flags |= KVANT_ATTEND_SOFT_CAP;
  if (masked) flags |= KVANT_ATTEND_CUSTOM_MASK;
  if (args.lse.present() || args.mass) flags |= KVANT_ATTEND_LSE;
  return flags;
}

}  // namespace

AttendVariant& CacheImpl::find_variant(std::uint32_t group, const AttendRequest& request) {
  for (std::size_t i = 0; i < step_.variant_count; ++i)
    if (step_.variants[i].group == group && step_.variants[i].request == request) return step_.variants[i];
  if (step_.variant_count == step_.variants.size()) step_.variants.emplace_back();
  AttendVariant& variant = step_.variants[step_.variant_count];
  variant.group = group;
  variant.request = request;
  planner_.plan(step_.groups[group].batch, geometry_.groups[group], geometry_.page_tokens, request, variant.plan);
  variant.items_offset = meta_.append(std::span<const params::AttendItem>(variant.plan.items));
  variant.merges_offset = meta_.append(std::span<const params::MergeItem>(variant.plan.merges));
  ++step_.variant_count;  // only now: one that is not whole must not be found
  return variant;
}

Status CacheImpl::prepare_attention(LayerRun& run) {
  const RunArgs& args = *run.args;
  const LayerGeometry& layer = geometry_.layers[run.layer];
  const GroupGeometry& group = geometry_.groups[run.group];
  const GroupBatch& batch = step_.groups[run.group].batch;
  const std::uint64_t row_bytes = (std::uint64_t{run.head_dim_v} + 1) * sizeof(float);
  run.flags = attend_flags(args, group, step_.masked);
  const std::uint32_t few = args.invariant ? kInvariantQueries : kShortQueries;
  for (const QueryClass queries : {QueryClass{1, few}, QueryClass{few + 1, 0xFFFFFFFFu}}) {
    const BatchShape facts = batch_shape(batch, group, queries.least, queries.most);
    if (facts.sequences == 0) continue;
    AttendShape shape;
    shape.format_k = static_cast<std::uint32_t>(layer.sides[0].format);
    shape.format_v = static_cast<std::uint32_t>(layer.sides[1].format);
    shape.head_dim_k = run.head_dim_k;
    shape.head_dim_v = run.head_dim_v;
    shape.group = args.q_heads / run.kv_heads;
    shape.kv_heads = run.kv_heads;
    shape.max_queries = facts.max_queries;
    shape.total_queries = facts.total_queries;
    shape.max_kv_len = facts.max_kv_len;
    shape.total_kv_len = facts.total_kv_len;
    shape.page_tokens = geometry_.page_tokens;
    if (args.invariant && queries.most == few) {
      shape.max_queries = 1;
      shape.total_queries = 1;
      shape.max_kv_len = shape.total_kv_len = kInvariantLength;
    }
    AttendConfig config = executor_.attend_config(shape);
    if (attend_override_) config = attend_override_(shape, config);

    AttendRequest request;
    request.q_heads = args.q_heads;
    request.causal = args.causal;
    request.least_queries = queries.least;
    request.most_queries = queries.most;
    request.queries_per_item = config.queries_per_item;
    request.kv_per_item = config.kv_per_item;
    request.kv_split = config.kv_split;
    const std::uint64_t most_bytes = executor_.limits().max_binding_bytes;
    request.partial_rows = std::min(kPartialBytes, most_bytes) / row_bytes;
    const AttendVariant& variant = find_variant(run.group, request);
    const std::uint64_t partial_bytes = variant.plan.max_partial_rows * row_bytes;
    if (partial_bytes > most_bytes)
      return {StatusCode::resource_exhausted, "the partial results of one query take " + std::to_string(partial_bytes) +
                                                  " bytes, the device binds at most " + std::to_string(most_bytes)};
    KVANT_TRY(partial_.ensure(partial_bytes, run.recording ? &retired_ : nullptr));
    run.parts[run.part_count++] = {static_cast<std::size_t>(&variant - step_.variants.data()), config};
  }
  if (!args.mass || args.lse.present()) return {};
  const std::uint64_t lse_bytes = std::uint64_t{step_.queries} * args.q_heads * sizeof(float);
  KVANT_TRY(lse_.ensure(lse_bytes, run.recording ? &retired_ : nullptr));
  run.lse.range = lse_.range(lse_bytes);
  return {};
}

void CacheImpl::record_attention(const LayerRun& run) {
  const RunArgs& args = *run.args;
  const LayerGeometry& layer = geometry_.layers[run.layer];
  const GroupGeometry& group = geometry_.groups[run.group];
  const GroupTables& tables = step_.groups[run.group];
  const ExecutorLimits& limits = executor_.limits();

  params::AttendParams attend{};
  attend.seqs_offset = tables.seqs_offset;
  attend.pages_offset = tables.pages_offset;
  attend.q_heads = args.q_heads;
  attend.kv_heads = run.kv_heads;
  attend.q_offset = run.q.offset;
  attend.q_token_stride = run.q.token_stride;
  attend.q_head_stride = run.q.head_stride;
  attend.out_offset = run.out.offset;
  attend.out_token_stride = run.out.token_stride;
  attend.out_head_stride = run.out.head_stride;
  attend.lse_offset = run.lse.offset;
  attend.sinks_offset = run.sinks_offset;
  attend.slopes_offset = run.slopes_offset;
  attend.scale = args.scale != 0.0f ? args.scale : 1.0f / std::sqrt(static_cast<float>(run.head_dim_k));
  attend.soft_cap = args.soft_cap;
  attend.window = group.window;
  attend.window_sinks = group.window_sinks;

  for (const LayerRun::Part& part : std::span(run.parts).first(run.part_count)) {
    const AttendVariant& variant = step_.variants[part.variant];
    const AttendConfig& config = part.config;
    const std::uint32_t tiles = (args.q_heads / run.kv_heads + config.heads_per_tile - 1) / config.heads_per_tile;
    assert(run.kv_heads * tiles <= limits.max_groups[1]);
    attend.items_offset = variant.items_offset;
    attend.partial_lse_offset = static_cast<std::uint32_t>(variant.plan.max_partial_rows * run.head_dim_v);  // words of a binding
    for (const AttendPass& pass : variant.plan.passes) {
      bool barrier = true;  // after append, and after the merges that read PARTIAL before
      for (const SlabItems& items : std::span(variant.plan.slabs).subspan(pass.slab_begin, pass.slab_count)) {
        for (std::uint32_t done = 0; done < items.item_count;) {
          const std::uint32_t count = std::min(items.item_count - done, limits.max_groups[0]);
          attend.item_begin = items.item_begin + done;
          attend.page_begin = items.slab == kNoSlab ? 0 : group.first_page(items.slab);
          Dispatch& dispatch = list_.add_dispatch(config.kernel, kernel_info(config.kernel).name.data(), barrier);
          barrier = false;
          dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = config.local_size;
          dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(layer.sides[0].format);
          dispatch.spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(layer.sides[1].format);
          dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = run.head_dim_k;
          dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = run.head_dim_v;
          dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = geometry_.page_tokens;
          dispatch.spec[KVANT_SPEC_IO_TYPE_IN] = static_cast<std::uint32_t>(args.q.type);
          dispatch.spec[KVANT_SPEC_IO_TYPE_OUT] = static_cast<std::uint32_t>(args.out.type);
          dispatch.spec[KVANT_SPEC_FLAGS] = run.flags;
          dispatch.spec[KVANT_SPEC_HEADS_PER_TILE] = config.heads_per_tile;
          dispatch.spec[KVANT_SPEC_QUERIES_PER_ITEM] = config.queries_per_item;
          dispatch.spec[KVANT_SPEC_KV_PER_ITEM] = config.kv_per_item;
          dispatch.spec[KVANT_SPEC_SUBGROUP_SIZE] = config.subgroup_size;
          for (std::size_t t = 0; t < config.tune.size(); ++t) dispatch.spec[KVANT_SPEC_TUNE0 + t] = config.tune[t];
          std::memcpy(dispatch.push.data(), &attend, sizeof attend);
          if (items.slab != kNoSlab) {
            dispatch.bindings[0] = slabs_.region(run.layer, Side::k, items.slab);
            dispatch.bindings[1] = slabs_.region(run.layer, Side::v, items.slab);
          }
          dispatch.bindings[2] = run.q.range;
          dispatch.bindings[3] = run.out.range;
          dispatch.bindings[4] = meta_.range();
          dispatch.bindings[5] = pass.partial_rows != 0 ? partial_.range(partial_.size()) : BufferRange{};
          dispatch.bindings[6] = run.heads;
          dispatch.bindings[7] = run.lse.range;
          dispatch.groups = {count, run.kv_heads * tiles, 1};
          done += count;
        }
      }
      record_merge(run, variant, pass);
    }
  }
  if (!args.mass) return;
  mass_group_[run.layer] = args.q_heads / run.kv_heads;
  record_scores(run, attend);
}

void CacheImpl::record_merge(const LayerRun& run, const AttendVariant& variant, const AttendPass& pass) {
  const ExecutorLimits& limits = executor_.limits();
  const RunArgs& args = *run.args;
  params::MergeParams merge{};
  merge.items_offset = variant.merges_offset;
  merge.q_heads = args.q_heads;
  merge.partial_lse_offset = static_cast<std::uint32_t>(variant.plan.max_partial_rows * run.head_dim_v);
  merge.out_offset = run.out.offset;
  merge.out_token_stride = run.out.token_stride;
  merge.out_head_stride = run.out.head_stride;
  merge.lse_offset = run.lse.offset;
  merge.sinks_offset = run.sinks_offset;
  assert(args.q_heads <= limits.max_groups[1]);
  for (std::uint32_t done = 0; done < pass.merge_count;) {
    const std::uint32_t count = std::min(pass.merge_count - done, limits.max_groups[0]);
    merge.item_begin = pass.merge_begin + done;
    Dispatch& dispatch = list_.add_dispatch(KernelId::attend_merge, "attend_merge", done == 0);
    dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = executor_.page_kernel_config(KernelId::attend_merge).local_size;
    dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = run.head_dim_v;
    dispatch.spec[KVANT_SPEC_IO_TYPE_OUT] = static_cast<std::uint32_t>(args.out.type);
    dispatch.spec[KVANT_SPEC_FLAGS] = run.flags;
    std::memcpy(dispatch.push.data(), &merge, sizeof merge);
    dispatch.bindings[0] = partial_.range(partial_.size());
    dispatch.bindings[1] = run.out.range;
    dispatch.bindings[2] = meta_.range();
    dispatch.bindings[3] = run.heads;
    dispatch.bindings[4] = run.lse.range;
    dispatch.groups = {count, args.q_heads, 1};
    done += count;
  }
}

}  // namespace kvant
