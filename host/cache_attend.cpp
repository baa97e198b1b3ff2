// CacheImpl: the attention of one layer: configs and items, shared by layers that ask the same, and their dispatches.
#include <algorithm>
#include <bit>
#include <cmath>
#include <span>

#include "attend_record.hpp"
#include "layer_run.hpp"
#include "params/attend.h"
#include "shared_keys.hpp"

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

// Sequences share the work on their common keys if that saves reading a key of this many.
constexpr std::uint64_t kWorthSharing = 8;
// So many query rows of a KV head fill tiles that are made for prompts.
constexpr std::uint32_t kManyRows = 16;

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

AttendVariant& CacheImpl::find_variant(std::uint32_t group, bool wide, const AttendRequest& request) {
  for (std::size_t i = 0; i < step_.variant_count; ++i)
    if (step_.variants[i].group == group && step_.variants[i].wide == wide && step_.variants[i].request == request) return step_.variants[i];
  if (step_.variant_count == step_.variants.size()) step_.variants.emplace_back();
  AttendVariant& variant = step_.variants[step_.variant_count];
  variant.group = group;
  variant.wide = wide;
  variant.request = request;
  planner_.plan(wide ? step_.wide[group].batch : step_.groups[group].batch, geometry_.groups[group], geometry_.page_tokens, request, variant.plan);
  variant.items_offset = meta_.append(std::span<const params::AttendItem>(variant.plan.items));
  variant.merges_offset = meta_.append(std::span<const params::MergeItem>(variant.plan.merges));
  variant.shared_seqs_offset = meta_.append(std::span<const params::AttendSeq>(variant.plan.shared_seqs));
  ++step_.variant_count;  // only now: one that is not whole must not be found
  return variant;
}

// The config for keys that neighbouring sequences share, if there are enough of them, and if it serves more queries at once. How many share them is
// rounded up: sequences come and go, and each number would be a pipeline of its own.
std::optional<AttendConfig> CacheImpl::shared_config(const LayerRun& run, AttendShape shape, const AttendRequest& request) {
  const RunArgs& args = *run.args;
  if (args.invariant || args.mass || args.alibi_slopes != nullptr || geometry_.groups[run.group].window != 0) return std::nullopt;
  const GroupBatch& batch = tables_of(run).batch;
  find_common_tokens(batch, geometry_.page_tokens, {args.causal, request.least_queries, request.most_queries}, common_tokens_);
  const SharedShape shared = shared_shape(batch, common_tokens_);
  if (shared.saved == 0 || shared.saved < shape.total_kv_len / kWorthSharing) return std::nullopt;
  shape.max_queries = std::bit_ceil(shared.max_queries);
  if (std::uint64_t{shared.max_queries} * shape.group >= kManyRows) shape.max_queries = std::max(shape.max_queries, kManyRows);
  shape.total_queries = shared.total_queries;
  shape.max_kv_len = shared.max_kv_len;
  shape.total_kv_len = shared.total_kv_len;
  const AttendConfig config = attend_config(shape);
  if (config.queries_per_item <= request.own.queries_per_item) return std::nullopt;
  return config;
}

AttendConfig CacheImpl::attend_config(const AttendShape& shape) const {
  const AttendConfig config = executor_.attend_config(shape);
  return attend_override_ ? attend_override_(shape, config) : config;
}

// The variant's number, with memory for its partial results. Where shared keys ask for more of that than there is, each sequence reads its own.
Result<std::size_t> CacheImpl::partial_variant(const LayerRun& run, AttendRequest request, std::uint64_t row_bytes) {
  const std::uint64_t most_bytes = executor_.limits().max_binding_bytes;
  for (;;) {
    const AttendVariant& variant = find_variant(run.group, run.read_wide, request);
    const std::uint64_t bytes = variant.plan.max_partial_rows * row_bytes;
    const Status status =
        bytes > most_bytes ? Status(StatusCode::resource_exhausted, "the partial results of one query take " + std::to_string(bytes) +
                                                                        " bytes, the device binds at most " + std::to_string(most_bytes))
                           : partial_.ensure(bytes, run.recording ? &retired_ : nullptr);
    if (status.ok()) return static_cast<std::size_t>(&variant - step_.variants.data());
    if (request.shared == ItemCut{} || status.code() != StatusCode::resource_exhausted) return status;
    request.shared = {};
  }
}

Status CacheImpl::prepare_attention(LayerRun& run) {
  const RunArgs& args = *run.args;
  const GroupGeometry& group = geometry_.groups[run.group];
  const GroupBatch& batch = step_.groups[run.group].batch;
  const std::uint64_t row_bytes = (std::uint64_t{run.head_dim_v} + 1) * sizeof(float);
  run.flags = attend_flags(args, group, step_.masked) | run.transforms;
  const std::uint32_t few = args.invariant ? kInvariantQueries : kShortQueries;
  for (const QueryClass queries : {QueryClass{1, few}, QueryClass{few + 1, 0xFFFFFFFFu}}) {
    const BatchShape facts = batch_shape(batch, group, queries.least, queries.most);
    if (facts.sequences == 0) continue;
    AttendShape shape = run.attend_shape(geometry_);
    shape.max_queries = facts.max_queries;
    shape.total_queries = facts.total_queries;
    shape.max_kv_len = facts.max_kv_len;
    shape.total_kv_len = facts.total_kv_len;
    shape.scored = args.mass;
    if (args.invariant && queries.most == few) {
      shape.max_queries = 1;
      shape.total_queries = 1;
      shape.max_kv_len = shape.total_kv_len = kInvariantLength;
    }
    if (run.read_wide) {  // one kernel for pages and copies: one that takes the copies' formats takes the pages' as well
      shape.format_k = static_cast<std::uint32_t>(wide_->geometry().layers[run.layer].sides[0].format);
      shape.format_v = static_cast<std::uint32_t>(wide_->geometry().layers[run.layer].sides[1].format);
    }
    const AttendConfig config = attend_config(shape);

    AttendRequest request;
    request.q_heads = args.q_heads;
    request.causal = args.causal;
    request.least_queries = queries.least;
    request.most_queries = queries.most;
    request.own = item_cut(config);
    const std::optional<AttendConfig> shared = shared_config(run, shape, request);
    if (shared) request.shared = item_cut(*shared);
    request.merge_all = (run.transforms & (KVANT_ROTATE_V | KVANT_CENTRE_V)) != 0;
    request.partial_rows = std::min(kPartialBytes, executor_.limits().max_binding_bytes) / row_bytes;
    KVANT_ASSIGN(std::size_t variant, partial_variant(run, request, row_bytes));
    LayerRun::Part& part = run.parts[run.part_count++];
    part.config = config;
    part.shared_config = shared.value_or(config);
    part.scored = part.variant = variant;
    if (!args.mass || !run.read_wide) continue;
    const AttendVariant& scored = find_variant(run.group, false, request);
    part.scored = static_cast<std::size_t>(&scored - step_.variants.data());
  }
  if (!args.mass || args.lse.present()) return {};
  const std::uint64_t lse_bytes = std::uint64_t{step_.queries} * args.q_heads * sizeof(float);
  KVANT_TRY(lse_.ensure(lse_bytes, run.recording ? &retired_ : nullptr));
  run.lse.range = lse_.range(lse_bytes);
  return {};
}

void CacheImpl::record_attention(const LayerRun& run) {
  const RunArgs& args = *run.args;
  const GroupGeometry& group = geometry_.groups[run.group];
  const GroupTables& tables = tables_of(run);

  AttendCall call;
  call.shape = run.attend_shape(geometry_);
  call.io_in = static_cast<std::uint32_t>(args.q.type);
  call.io_out = static_cast<std::uint32_t>(args.out.type);
  call.flags = run.flags;
  call.merge_local_size = executor_.page_kernel_config(KernelId::attend_merge).local_size;
  call.q = run.q.range;
  call.out = run.out.range;
  call.meta = meta_.range();
  call.partial = partial_.range(partial_.size());
  call.heads = run.heads;
  call.merge_heads = run.facts;
  call.merge_means = means_.range(run.layer, Side::v);
  call.lse_or_bias = call.merge_lse = run.lse.range;

  params::AttendParams& attend = call.params;
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

  const auto slab = [this, &run](std::uint32_t index) {
    const GroupGeometry& pages = geometry_.groups[run.group];
    const bool copies = index >= pages.slab_ids();
    const SlabStore& slabs = copies ? wide_->slabs() : slabs_;
    const LayerGeometry& layer = copies ? wide_->geometry().layers[run.layer] : geometry_.layers[run.layer];
    const std::uint32_t own = copies ? index - pages.slab_ids() : index;
    return AttendSlab{slabs.region(run.layer, Side::k, own), slabs.region(run.layer, Side::v, own), pages.first_page(index),
                      layer.sides[0].format, layer.side(Side::v, copies ? 0 : pages.grade_of(index)).format};
  };
  for (const LayerRun::Part& part : std::span(run.parts).first(run.part_count)) {
    const AttendVariant& variant = step_.variants[part.variant];
    call.plan = &variant.plan;
    call.config = part.config;
    call.shared_config = part.shared_config;
    call.merges_offset = variant.merges_offset;
    call.shared_seqs_offset = variant.shared_seqs_offset;
    attend.items_offset = variant.items_offset;
    record_attend(list_, call, slab, executor_.limits());
  }
  if (!args.mass) return;
  mass_group_[run.layer] = args.q_heads / run.kv_heads;
  record_scores(run, attend);
}

}  // namespace kvant
