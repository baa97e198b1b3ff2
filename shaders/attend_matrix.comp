#version 450
// attend_matrix: attention of many queries over paged, quantized keys and values by cooperative matrices. Rows are
// queries times the query heads of a KV head; each subgroup has ROW_TILES tiles of MATRIX_M of them to itself. A chunk
// of K, then of V, is decoded into shared memory once for all rows; softmax runs on the subgroup's own scores.
// Tensors: K, V regions, Q -> OUT and LSE, or PARTIAL (see params/attend.h). Grid: x = items, y = kv_heads * tiles.
// Constants: LOCAL_SIZE, FORMAT_K, FORMAT_V, HEAD_DIM_K, HEAD_DIM_V, PAGE_TOKENS, IO_TYPE_IN, IO_TYPE_OUT, FLAGS,
// HEADS_PER_TILE, QUERIES_PER_ITEM, SUBGROUP_SIZE, TUNE0 = MATRIX_M, TUNE1 = MATRIX_N, TUNE2 = CHUNK, TUNE3 = MATRIX_K.
// Numeric contract: Q, K, V and the softmax's weights rounded to fp16 (formats of its range alone; what is denormal there
// may count as zero), products and sums in fp32. Masked and unmapped keys are selected away: their K and V never reach a
// sum, be they NaN. Elements beyond 65504 become infinite; so small a weight that fp16 has zero for it hides them.
// No visible key: zeros and log-sum-exp -infinity (with sinks: the sink's logit).
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_vote : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#define USE_SUBGROUP
#define USE_MATRICES
#include "attend_bindings.glsl"
#include "attention_hooks.glsl"
#include "softmax_state.glsl"
#include "page_table.glsl"
#include "kv_region.glsl"
#include "matrix_shared.glsl"
#include "attend_queries.glsl"
#include "attend_softmax.glsl"
#include "attend_output.glsl"
#include "matrix_tiles.glsl"

// Weights are stored times this: what fp16 would take for denormal, some devices for zero, is then below 2^-24.
const float WEIGHT_UNIT = 1024.0;

float largest_of_row(float x) {
  [[unroll]] for (uint step = 1u; step < 128u; step *= 2u) {
    if (step < ROW_LANES) x = max(x, subgroupShuffleXor(x, step));
  }
  return x;
}

float sum_of_row(float x) {
  [[unroll]] for (uint step = 1u; step < 128u; step *= 2u) {
    if (step < ROW_LANES) x += subgroupShuffleXor(x, step);
  }
  return x;
}

// Weights of the lane's tokens into weight_tile; returns their sum.
float store_weights(float largest, uint row, uint row_lane) {
  float sum = 0.0;
  for (uint g = row_lane; g < GROUPS; g += ROW_LANES) {
    vec4 x = pool[row * SCORE_ROW + g];
    [[unroll]] for (uint u = 0u; u < 4u; ++u) {
      x[u] = softmax_weight(x[u], largest);
      sum += x[u];
    }
    weight_tile[row * WEIGHT_ROW + g] = f16vec4(x * WEIGHT_UNIT);
  }
  return sum;
}

void main() {
  const uint lane = gl_SubgroupID * SUBGROUP_SIZE + gl_SubgroupInvocationID;
  const AttendItem item = load_item(params.item_begin + gl_WorkGroupID.x);
  const AttendSeq seq = load_seq(item.seq);
  const Tile tile = tile_of(gl_WorkGroupID.y);
  uint begin = item.kv_begin;
  uint end = item.kv_end;
  hook_key_range(seq, item, begin, end);
  end = max(begin, end);

  const uint first_row = gl_SubgroupID * SUBGROUP_ROWS;
  const uint row = lane / ROW_LANES;
  const uint row_lane = lane % ROW_LANES;
  const HookRow hooks = hook_row(seq, row_query(item, row), row_head(tile, row));
  stage_queries(seq, item, tile, lane);
  clear_value_sums();
  float sum = 0.0;
  float largest = SOFTMAX_EMPTY;
  if (HAS_CENTRE) {
    barrier();
    shift_rows(tile, lane);
    barrier();
  }

  for (uint chunk = begin; chunk < end; chunk += CHUNK) {
    const uint chunk_end = min(end, chunk + CHUNK);
    stage_pages(seq, chunk, chunk_end, lane);
    stage_keys(seq, tile, chunk, chunk_end, lane);
    barrier();
    multiply_scores(first_row);
    subgroupBarrier();
    const float before = largest;
    largest = largest_of_row(max(before, make_logits(seq, hooks, chunk, chunk_end, GROUPS, row, row_lane)));
    sum = sum * softmax_weight(before, largest) + store_weights(largest, row, row_lane);
    // After the first chunks mostly no row's maximum moves. Barriers stay outside of the condition: there are drivers that wait in
    // them for the whole workgroup.
    const bool moved = subgroupAny(before != largest);
    subgroupBarrier();
    if (moved) {
      for (uint i = row_lane; i < MATRIX_N / 4u; i += ROW_LANES)
        pool[row * SCORE_ROW + i] = vec4(softmax_weight(before, largest));
    }
    subgroupBarrier();
    if (moved) rescale_value_sums(first_row);
    barrier();
    stage_values(seq, tile, chunk, chunk_end, lane);
    barrier();
    if (chunk_has_specials[0] == 0u)
      multiply_values(first_row);
    else
      add_values_singly(first_row);
    barrier();
  }

  sum = sum_of_row(sum);
  if (row_lane == 0u) {
    row_sum[row] = sum;
    finish_row(seq, item, tile, row, largest);
  }
  [[unroll]] for (uint t = 0u; t < V_TILES; t += CHUNK_TILES) {
    subgroupBarrier();
    share_value_sums(first_row, t, CHUNK_TILES);
    subgroupBarrier();
    for (uint w = gl_SubgroupInvocationID; w < SUBGROUP_ROWS * GROUPS; w += SUBGROUP_SIZE) {
      const uint own = first_row + w / GROUPS;
      const uint e = t * MATRIX_N + w % GROUPS * 4u;
      if (e < HEAD_DIM_V && row_is_valid(item, tile, own))
        write_row_quad(seq, item, tile, own, e, pool[own * SCORE_ROW + w % GROUPS] * (row_rescale[own] / WEIGHT_UNIT));
    }
  }
}
