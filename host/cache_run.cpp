// CacheImpl: one layer of a step on the device: fresh tokens into their pages, then attention over them.
#include <algorithm>
#include <cstring>
#include <utility>

#include "append_record.hpp"
#include "layer_run.hpp"
#include "params/grids.h"
#include "params/pages.h"
#include "rollback.hpp"

namespace kvant {
namespace {

// The fresh tokens that a mean is made of, and how many of them go to a page.
std::span<const std::int32_t> first_rows(const GroupBatch& batch) {
  return std::span(batch.slots).first(std::min<std::size_t>(batch.slots.size(), LayerMeans::kMostTokens));
}
std::uint32_t measured_rows(const GroupBatch& batch) {
  const auto slots = first_rows(batch);
  return static_cast<std::uint32_t>(std::count_if(slots.begin(), slots.end(), [](std::int32_t slot) { return slot >= 0; }));
}

}  // namespace

Status CacheImpl::check_run(const Step& step, std::uint32_t layer, const RunArgs& args, LayerRun& run) const {
  if (step.cache_ != this || open_step_ != &step)
    return {StatusCode::failed_precondition, "the step is not the open step of this cache"};
  KVANT_TRY(check_layer(layer));
  const GroupGeometry& group = geometry_.group_of(layer);
  run.layer = layer;
  run.group = geometry_.layers[layer].group;
  run.args = &args;
  run.recording = args.command_buffer != nullptr;
  run.kv_heads = group.kv_heads;
  run.head_dim_k = group.head_dim_k;
  run.head_dim_v = group.head_dim_v;
  run.append = step_.fresh_tokens != 0 && args.k.present();
  run.attend = step_.queries != 0 && args.q.present();
  run.transforms = geometry_.layers[layer].transforms;
  if (run.append && means_.open_sides(layer) != 0 && measured_rows(step_.groups[run.group].batch) >= LayerMeans::kLeastTokens)
    run.measure = means_.open_sides(layer);
  run.wide = wide_ != nullptr && step_.wide[run.group].any && (run.append || !step_.imported[layer]);
  run.read_wide = run.wide && !args.invariant;  // which tokens have copies depends on how they came into steps

  if (step_.fresh_tokens != 0 && !step_.appended[layer] && !args.k.present())
    return {StatusCode::invalid_argument, "the step appends " + std::to_string(step_.fresh_tokens) +
                                              " tokens, and k of layer " + std::to_string(layer) + " is missing"};
  if (args.k.present() != args.v.present())
    return {StatusCode::invalid_argument,
            std::string("k and v come together, only ") + (args.k.present() ? "k" : "v") + " is given"};
  if (run.append && args.k.type != args.v.type)
    return {StatusCode::invalid_argument, "k and v have different element types"};
  if (run.attend) {
    if (!args.out.present()) return {StatusCode::invalid_argument, "q is given and out is missing"};
    if (args.mass) KVANT_TRY(need_mass());
    if (args.alibi_slopes != nullptr)
      for (const StepSequence& entry : step_.sequences)
        if (entry.sequence->pruned)
          return {StatusCode::failed_precondition,
                  "ALiBi counts the places between tokens, and " + sequence_text(entry.sequence->id) + " was pruned"};
    if (args.q_heads == 0 || args.q_heads % group.kv_heads != 0)
      return {StatusCode::invalid_argument, "q_heads (" + std::to_string(args.q_heads) +
                                                ") is not a multiple of the layer's " + std::to_string(group.kv_heads) +
                                                " KV heads"};
    const bool contiguous =
        (args.lse.token_stride == 0 || args.lse.token_stride == args.q_heads) && args.lse.head_stride <= 1;
    if (args.lse.present() && (args.lse.type != IoType::f32 || (args.lse.host == nullptr && !contiguous)))
      return {StatusCode::invalid_argument, "lse is not a contiguous f32 tensor [query][q_head]"};
  }
  if (run.recording)
    for (const TensorView* view : {&args.k, &args.v, &args.q, &args.out, &args.lse})
      if (view->host != nullptr)
        return {StatusCode::invalid_argument,
                "a command buffer takes tensors in buffers only, one lies in host memory"};
  return {};
}

// Sink logits and ALiBi slopes per query head. A recorded command may run long after this call, so there they become
// part of the step's META, as where means of K have their binding; otherwise they are staged for the submit.
Status CacheImpl::bind_heads(LayerRun& run) {
  const RunArgs& args = *run.args;
  if (args.sinks == nullptr && args.alibi_slopes == nullptr) return {};
  const std::uint32_t heads = args.q_heads;
  if (run.recording || run.centred()) {
    if (args.sinks != nullptr) run.sinks_offset = meta_.append(std::span(args.sinks, heads));
    if (args.alibi_slopes != nullptr) run.slopes_offset = meta_.append(std::span(args.alibi_slopes, heads));
    return {};
  }
  KVANT_ASSIGN(const Staging staging, executor_.stage(std::uint64_t{heads} * 2 * sizeof(float), BufferKind::upload));
  run.heads = run.facts = staging.range;
  run.slopes_offset = heads;
  std::memset(staging.data, 0, heads * 2 * sizeof(float));
  if (args.sinks != nullptr) std::memcpy(staging.data, args.sinks, heads * sizeof(float));
  if (args.alibi_slopes != nullptr)
    std::memcpy(staging.data + heads * sizeof(float), args.alibi_slopes, heads * sizeof(float));
  return {};
}

void CacheImpl::record_means(const LayerRun& run) {
  const GroupTables& tables = step_.groups[run.group];
  params::MeansParams means{};
  means.tokens = static_cast<std::uint32_t>(first_rows(tables.batch).size());
  means.inverse = 1.0f / static_cast<float>(measured_rows(tables.batch));
  means.slots_offset = tables.slots_offset;
  means.k_offset = run.k.offset;
  means.k_token_stride = run.k.token_stride;
  means.k_head_stride = run.k.head_stride;
  means.v_offset = run.v.offset;
  means.v_token_stride = run.v.token_stride;
  means.v_head_stride = run.v.head_stride;
  means.v_means_offset = means_.v_offset(run.layer);
  means.sides = run.measure;
  Dispatch& dispatch = list_.add_dispatch(KernelId::means, "means", true);
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = executor_.page_kernel_config(KernelId::means).local_size;
  dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = run.head_dim_k;
  dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = run.head_dim_v;
  dispatch.spec[KVANT_SPEC_IO_TYPE_IN] = static_cast<std::uint32_t>(run.args->k.type);
  dispatch.spec[KVANT_SPEC_FLAGS] = geometry_.layers[run.layer].transforms & (KVANT_ROTATE_K | KVANT_ROTATE_V);
  std::memcpy(dispatch.push.data(), &means, sizeof means);
  dispatch.bindings[0] = run.k.range;
  dispatch.bindings[1] = run.v.range;
  dispatch.bindings[2] = meta_.range();
  dispatch.bindings[3] = means_.range(run.layer);
  dispatch.groups = {run.kv_heads, 2, 1};
}

void CacheImpl::record_append(const LayerRun& run, const GroupTables& tables, const Geometry& geometry, const SlabStore& slabs, bool barrier) {
  const LayerGeometry& layer = geometry.layers[run.layer];
  const GroupGeometry& group = geometry.groups[run.group];
  AppendCall call;
  call.format_k = layer.sides[0].format;
  call.format_v = layer.sides[1].format;
  call.head_dim_k = run.head_dim_k;
  call.head_dim_v = run.head_dim_v;
  call.page_tokens = geometry_.page_tokens;
  call.io_in = static_cast<std::uint32_t>(run.args->k.type);
  call.flags = layer.transforms;
  call.k_rows = run.k.range;
  call.v_rows = run.v.range;
  call.slots = meta_.range();
  call.means = means_.range(run.layer);
  for (const AppendSpan& span : tables.batch.appends) {
    params::AppendParams append{};
    append.tokens = span.count;
    append.kv_heads = run.kv_heads;
    append.page_begin = group.first_page(span.slab);
    append.page_count = group.pages_in(span.slab);
    append.slots_offset = tables.slots_offset + span.first;
    append.slots_stride = 1;
    append.k_offset = run.k.offset + span.first * run.k.token_stride;
    append.k_token_stride = run.k.token_stride;
    append.k_head_stride = run.k.head_stride;
    append.v_offset = run.v.offset + span.first * run.v.token_stride;
    append.v_token_stride = run.v.token_stride;
    append.v_head_stride = run.v.head_stride;
    append.v_means_offset = means_.v_offset(run.layer);
    call.mass = slabs.mass(run.group, span.slab);
    if (call.mass.buffer != BufferId::none) {
      append.mass_offset = mass_place(run.layer).offset;
      append.mass_page_stride = mass_place(run.layer).page_stride;
    }
    call.params = append;
    call.k = slabs.region(run.layer, Side::k, span.slab);
    call.v = slabs.region(run.layer, Side::v, span.slab);
    kvant::record_append(list_, call, executor_, std::exchange(barrier, false));
  }
}

// Binds tensors and fills list_. Tables come first: their upload may take submits of its own.
Status CacheImpl::record_run(LayerRun& run) {
  const RunArgs& args = *run.args;
  auto shape = [&](TensorRole role) { return run.shape(role, step_.fresh_tokens, step_.queries); };
  std::uint64_t host_bytes = 0;
  if (run.append)
    host_bytes += TensorIo::bytes_of(args.k, shape(TensorRole::k)) + TensorIo::bytes_of(args.v, shape(TensorRole::v));
  if (run.attend) {
    KVANT_TRY(prepare_attention(run));
    if (run.recording || run.centred()) KVANT_TRY(bind_heads(run));
    host_bytes += TensorIo::bytes_of(args.q, shape(TensorRole::q)) +
                  TensorIo::bytes_of(args.out, shape(TensorRole::out)) +
                  TensorIo::bytes_of(args.lse, shape(TensorRole::lse)) + 8ull * args.q_heads + 256;
  }
  if (meta_.pending()) host_bytes += meta_.words().size() * sizeof(std::uint32_t) + 256;
  io_.begin(host_bytes);

  list_.clear();
  if (meta_.pending()) {
    KVANT_TRY(meta_.upload(list_, run.recording ? &retired_ : nullptr));
    // Recorded work keeps its upload inside the engine's command buffer: a submit here would complete the tickets of
    // layers that the engine has recorded but not yet submitted.
    if (!run.recording && !io_.direct()) {
      KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, executor_.submit(list_));
      list_.clear();
    }
  }
  if (run.append) {
    KVANT_ASSIGN(run.k, io_.input(TensorRole::k, args.k, shape(TensorRole::k)));
    KVANT_ASSIGN(run.v, io_.input(TensorRole::v, args.v, shape(TensorRole::v)));
  }
  if (run.attend) {
    KVANT_ASSIGN(run.q, io_.input(TensorRole::q, args.q, shape(TensorRole::q)));
    KVANT_ASSIGN(run.out, io_.output(TensorRole::out, args.out, shape(TensorRole::out)));
    if (args.lse.present()) {
      KVANT_ASSIGN(run.lse, io_.output(TensorRole::lse, args.lse, shape(TensorRole::lse)));
    }
    if (run.recording || run.centred()) {
      run.facts = meta_.range();
      run.heads = run.centred() ? means_.range(run.layer, Side::k) : run.facts;
    } else {
      KVANT_TRY(bind_heads(run));
    }
  }
  if (run.measure != 0) record_means(run);
  if (run.append) {
    // The barrier is for uploads, and for what an earlier list did to META and the pages.
    record_append(run, step_.groups[run.group], geometry_, slabs_, true);
    if (run.wide) record_append(run, step_.wide[run.group], wide_->geometry(), wide_->slabs(), step_.groups[run.group].batch.appends.empty());
  }
  if (run.attend) record_attention(run);
  return {};
}

Status CacheImpl::run(Step& step, std::uint32_t layer, const RunArgs& args) {
  const CacheJournal::Timer timer(journal_, Operation::run);
  LayerRun run;
  KVANT_TRY(check_run(step, layer, args, run));
  if (!run.append && !run.attend) {
    step_.appended[layer] = true;
    return {};
  }
  auto execute = [&]() -> Status {
    KVANT_TRY(record_run(run));
    if (list_.commands.empty()) return {};  // every fresh token is skipped, and nobody asks
    KVANT_ASSIGN(const Ticket ticket,
                 run.recording ? executor_.record(list_, args.command_buffer) : executor_.submit(list_));
    return io_.finish(ticket);
  };
  Rollback undo([this] { meta_.invalidate(); });  // its upload may have been part of what failed
  KVANT_TRY(execute());
  undo.complete();
  if (!run.append) return {};
  means_.settle(layer, run.measure != 0);
  step_.imported[layer] = false;
  step_.appended[layer] = true;
  journal_.layers[layer].appended_tokens += step_.fresh_tokens;
  sample_error(layer, args);
  return {};
}

}  // namespace kvant
