// The body of attend_decode and attend_prefill. A workgroup serves ROWS query rows of one KV head over the keys of its
// item: scores, softmax and values of a chunk of CHUNK tokens at a time. Modules without USE_KV_LOOP see one chunk,
// which is the whole item, and have no barrier in a loop; the others carry the softmax from chunk to chunk.
#ifndef KVANT_ATTEND_MAIN_GLSL
#define KVANT_ATTEND_MAIN_GLSL
#include "attend_bindings.glsl"
#include "attention_hooks.glsl"
#include "softmax_state.glsl"
#include "page_table.glsl"
#include "kv_region.glsl"
#include "attend_shared.glsl"
#include "attend_queries.glsl"
#ifdef USE_TOUCH
#include "attend_touch.glsl"
#endif
#include "attend_scores.glsl"
#include "attend_softmax.glsl"
#include "attend_output.glsl"
#include "attend_values.glsl"

#define KVANT_WRITE_ROW(n)                            \
  if (n < ROWS) {                                     \
    barrier();                                        \
    share_value_sums(n, 1u, lane);                    \
    barrier();                                        \
    write_rows(seq, item, tile, n, 1u, lane);         \
  }

void attend() {
#ifdef USE_SUBGROUP
  const uint lane = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
#else
  const uint lane = gl_LocalInvocationIndex;
#endif
  const AttendItem item = load_item(params.item_begin + gl_WorkGroupID.x);
  const AttendSeq seq = load_seq(item.seq);
  const Tile tile = tile_of(gl_WorkGroupID.y);
  uint begin = item.kv_begin;
  uint end = item.kv_end;
  hook_key_range(seq, item, begin, end);
  end = max(begin, end);

  // Lanes beyond ROWS * ROW_LANES repeat the last row's first tokens without effect.
  const uint row = min(lane / ROW_LANES, ROWS - 1u);
  const bool has_row = lane < ROWS * ROW_LANES;
  const uint row_lane = has_row ? lane % ROW_LANES : GROUPS;
  const HookRow hooks = hook_row(seq, row_query(item, row), row_head(tile, row));

  stage_queries(seq, item, tile, lane);
  if (lane < ROWS) row_largest[lane] = SOFTMAX_EMPTY;
  clear_value_sums();
  float sum = 0.0;
  float largest = SOFTMAX_EMPTY;
  uint parity = 0u;
  barrier();
  if (HAS_CENTRE) shift_rows(tile, lane);
  if (K_PASSES == 1u) load_lane_queries(lane % K_LANES);

#ifdef USE_KV_LOOP
  for (uint chunk = begin; chunk < end; chunk += CHUNK) {
    const uint chunk_end = min(end, chunk + CHUNK);
#else
    const uint chunk = begin;
    const uint chunk_end = end;
#endif
    const uint groups = (chunk_end - chunk + 3u) / 4u;
    for (uint pass = 0u; pass < K_PASSES; ++pass) {
      if (K_PASSES > 1u) load_lane_queries(lane % K_LANES + pass * K_LANES);
      add_scores(seq, tile, chunk, groups, pass, lane);
    }
    barrier();
    lane_values[lane] = make_logits(seq, hooks, chunk, chunk_end, groups, row, row_lane);
    barrier();
    const float before = row_largest[parity * ROWS + row];
    largest = before;
    for (uint i = 0u; i < ROW_LANES; ++i) largest = max(largest, lane_values[row * ROW_LANES + i]);
    const float rescale = softmax_weight(before, largest);
    sum = sum * rescale + make_weights(largest, groups, row, row_lane);
    parity ^= 1u;
    if (row_lane == 0u) {
      row_largest[parity * ROWS + row] = largest;
      row_rescale[row] = rescale;
    }
    barrier();
#ifdef USE_KV_LOOP
    rescale_value_sums();
#endif
    add_values(seq, tile, chunk, groups, lane);
#ifdef USE_KV_LOOP
    barrier();
  }
#endif

#ifdef USE_SUBGROUP
  add_value_sums_in_subgroup(lane);
#endif
#ifdef USE_TOUCH
  if (touched_in_vain()) sum = 0.0;
#endif
  lane_values[lane] = sum;
  barrier();
  if (row_lane == 0u) {
    sum = 0.0;
    for (uint i = 0u; i < ROW_LANES; ++i) sum += lane_values[row * ROW_LANES + i];
    row_sum[row] = sum;
    finish_row(seq, item, tile, row, largest);
  }
  if (SUM_ALL_ROWS) {
    share_value_sums(0u, ROWS, lane);
    barrier();
    write_rows(seq, item, tile, 0u, ROWS, lane);
  } else {
    KVANT_WRITE_ROW(0u) KVANT_WRITE_ROW(1u) KVANT_WRITE_ROW(2u) KVANT_WRITE_ROW(3u)
    KVANT_WRITE_ROW(4u) KVANT_WRITE_ROW(5u) KVANT_WRITE_ROW(6u) KVANT_WRITE_ROW(7u)
  }
}
#endif
