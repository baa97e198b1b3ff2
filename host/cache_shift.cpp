// CacheImpl: keys that were stored after RoPE, moved to other positions on the device: decoded, turned, encoded again. One layer's keys
// at a time pass through a scratch buffer; values have no position and stay.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "append_record.hpp"
#include "cache_impl.hpp"
#include "checked.hpp"
#include "params/grids.h"
#include "params/pages.h"

namespace kvant {

Status CacheImpl::check_shift(const Rotation& rotation) const {
  for (const GroupGeometry& group : geometry_.groups)
    if (rotation.frequencies.size() * 2 > group.head_dim_k)
      return {StatusCode::invalid_argument, std::to_string(rotation.frequencies.size()) +
                                                " frequencies turn more elements than the " +
                                                std::to_string(group.head_dim_k) + " of a key"};
  return {};
}

Status CacheImpl::shift_keys(SequenceId id, std::uint64_t begin, std::uint64_t count, const Rotation& rotation,
                             std::int64_t positions) {
  KVANT_TRY(check_no_step("shift keys"));
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  KVANT_TRY(check_shift(rotation));
  for (std::uint32_t layer = 0; layer < geometry_.layers.size(); ++layer) KVANT_TRY(check_readable(*sequence, layer, begin, count));
  if (count == 0 || positions == 0 || rotation.frequencies.empty()) return {};
  const std::uint32_t page_tokens = geometry_.page_tokens;
  const auto first = static_cast<std::uint32_t>(begin / page_tokens);
  const auto end = static_cast<std::uint32_t>(divide_up(begin + count, page_tokens));
  for (std::uint32_t g = 0; g < pools_.size(); ++g) KVANT_TRY(make_private(*sequence, g, first, end, false));  // values stay as they are
  drop_copies(*sequence, begin);
  forget_tokens(*sequence, begin);

  std::vector<float> angles;
  for (const double frequency : rotation.frequencies) {
    const double angle = frequency * static_cast<double>(positions);
    angles.push_back(static_cast<float>(std::cos(angle)));
    angles.push_back(static_cast<float>(std::sin(angle)));
  }
  for (std::uint32_t layer = 0; layer < geometry_.layers.size(); ++layer)
    KVANT_TRY(shift_layer(*sequence, layer, begin, count, rotation, angles));
  return {};
}

// In pieces of tokens that the scratch buffer, the staging ring and the kernels' counters take.
Status CacheImpl::shift_layer(const Sequence& sequence, std::uint32_t layer, std::uint64_t begin, std::uint64_t count,
                              const Rotation& rotation, std::span<const float> angles) {
  const std::uint32_t g = geometry_.layers[layer].group, page_tokens = geometry_.page_tokens;
  const GroupGeometry& group = geometry_.groups[g];
  const SideGeometry& keys = geometry_.layers[layer].side(Side::k);
  const std::uint64_t row_bytes = std::uint64_t{group.kv_heads} * keys.head_dim * sizeof(float);
  constexpr std::uint64_t kScratchBytes = 16u << 20;
  const std::uint64_t step = std::clamp<std::uint64_t>(
      std::min<std::uint64_t>(kScratchBytes, executor_.limits().max_binding_bytes) / row_bytes, 1, 4096);
  KVANT_TRY(partial_.ensure(std::min(step, count) * row_bytes, nullptr));
  for (std::uint64_t done = 0; done < count; done += step) {
    const std::uint64_t tokens = std::min(step, count - done);
    std::vector<std::int32_t> slots;
    for (std::uint64_t token = begin + done; token < begin + done + tokens; ++token)
      slots.push_back(sequence.tables[g].at(static_cast<std::uint32_t>(token / page_tokens)) * static_cast<std::int32_t>(page_tokens) +
                      static_cast<std::int32_t>(token % page_tokens));
    TensorView view;
    view.buffer = partial_.range(tokens * row_bytes);
    KVANT_TRY(read_by_slots(layer, Side::k, slots, view));
    KVANT_TRY(record_rotation(g, tokens, keys.head_dim, rotation, angles));
    KVANT_TRY(append_keys(layer, slots, view.buffer));
  }
  return {};
}

Status CacheImpl::record_rotation(std::uint32_t g, std::uint64_t tokens, std::uint32_t head_dim, const Rotation& rotation,
                                  std::span<const float> angles) {
  const ExecutorLimits& limits = executor_.limits();
  const std::uint32_t local_size = executor_.page_kernel_config(KernelId::rotate).local_size;
  KVANT_ASSIGN(const Staging staging, executor_.stage(angles.size_bytes(), BufferKind::upload));
  std::memcpy(staging.data, angles.data(), angles.size_bytes());
  params::RotateParams rotate{};
  rotate.rows = static_cast<std::uint32_t>(tokens * geometry_.groups[g].kv_heads);
  rotate.head_dim = head_dim;
  rotate.pairs = static_cast<std::uint32_t>(rotation.frequencies.size());
  rotate.halves = rotation.halves ? 1 : 0;
  list_.clear();
  Dispatch& dispatch = list_.add_dispatch(KernelId::rotate, "rotate", true);
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
  std::memcpy(dispatch.push.data(), &rotate, sizeof rotate);
  dispatch.bindings[0] = partial_.range(std::uint64_t{rotate.rows} * head_dim * sizeof(float));
  dispatch.bindings[1] = staging.range;
  dispatch.groups = params::rotate_grid(rotate.rows, rotate.pairs, local_size, limits.max_groups[0]);
  KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, executor_.submit(list_));
  return {};
}

// The append kernel with the grid of K alone.
Status CacheImpl::append_keys(std::uint32_t layer, std::span<const std::int32_t> slots, const BufferRange& rows) {
  const LayerGeometry& facts = geometry_.layers[layer];
  const GroupGeometry& group = geometry_.groups[facts.group];
  KVANT_ASSIGN(const Staging staging, executor_.stage(slots.size_bytes(), BufferKind::upload));
  std::memcpy(staging.data, slots.data(), slots.size_bytes());
  GroupBatch batch;
  batch.slots.assign(slots.begin(), slots.end());
  find_append_spans(batch, group, geometry_.page_tokens);
  list_.clear();
  AppendCall call;
  call.format_k = facts.sides[0].format;
  call.format_v = facts.sides[1].format;
  call.head_dim_k = group.head_dim_k;
  call.head_dim_v = group.head_dim_v;
  call.page_tokens = geometry_.page_tokens;
  call.io_in = static_cast<std::uint32_t>(IoType::f32);
  call.flags = facts.transforms;
  call.both_sides = false;
  call.k_rows = call.v_rows = rows;
  call.slots = staging.range;
  call.means = means_.range(layer);
  bool barrier = true;
  for (const AppendSpan& span : batch.appends) {
    params::AppendParams append{};
    append.tokens = span.count;
    append.kv_heads = group.kv_heads;
    append.page_begin = group.first_page(span.slab);
    append.page_count = group.pages_in(span.slab);
    append.slots_offset = span.first;
    append.slots_stride = 1;
    append.k_head_stride = group.head_dim_k;
    append.k_token_stride = group.head_dim_k * group.kv_heads;
    append.k_offset = span.first * append.k_token_stride;
    call.params = append;
    call.k = slabs_.region(layer, Side::k, span.slab);
    call.v = slabs_.region(layer, Side::v, span.slab);
    kvant::record_append(list_, call, executor_, std::exchange(barrier, false));
  }
  KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, executor_.submit(list_));
  return {};
}

}  // namespace kvant
