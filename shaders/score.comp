#version 450
// score: attention mass. For every key of an item: the sum over the item's queries and the query heads of a KV head of
// exp(logit - log-sum-exp), its weight in their softmax, added to the key's mass in its page.
// Tensors: K region, Q, LSE -> MASS (see params/attend.h). Grid: x = items, y = kv_heads * tiles.
// Constants: LOCAL_SIZE, FORMAT_K, HEAD_DIM_K, PAGE_TOKENS, IO_TYPE_IN, FLAGS, HEADS_PER_TILE, QUERIES_PER_ITEM (rows =
// product, at most 8). A lane takes four tokens at a time, wholly: no lane waits for another one, items may be of any length.
// Numeric contract: logits and weights in fp32, rows added in order; a weight counts as at most 1, one that is no number
// as 0. The sum is rounded to units of 2^-32 and added by integer atomics, so that a result does not depend on
// the order of workgroups, nor on how many dispatches share a page. Keys that are masked or unmapped add nothing.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#define KVANT_SCORE
#include "attend_bindings.glsl"
#include "attention_hooks.glsl"
#include "softmax_state.glsl"
#include "page_table.glsl"
#include "kv_region.glsl"
#include "attend_shared.glsl"
#include "attend_queries.glsl"

KV_REGION(k, k_words16, k_words)

#include "attend_dot.glsl"

// What a row's weights need besides its dot products. In shared memory, as drivers keep the span of Q, which is one for
// all lanes, in scalar registers: what is one for all lanes has no room there through the loop over the spans.
shared HookRow row_hooks[ROWS];
shared uint row_end[ROWS];  // of the item's keys; 0: the row adds nothing

// The weight of a key in a softmax; not a number, or more than 1, where logits were computed another way.
float mass_of(float logit, float lse) {
  const float weight = exp(logit - lse);
  return weight <= 1.0 ? weight : weight > 1.0 ? 1.0 : 0.0;
}

void add_mass(uint page, Tile tile, uint token, float mass) {
  if (!(mass > 0.0)) return;
  const uint word =
      params.mass_offset + page * params.mass_page_stride + (tile.kv_head * PAGE_TOKENS + token % PAGE_TOKENS) * 2u;
  uint whole = uint(mass);
  const uint part = uint((mass - float(whole)) * 4294967296.0 + 0.5);  // at most 2^32 - 256
  const uint before = atomicAdd(mass_words[word], part);
  if (before + part < before) ++whole;
  if (whole != 0u) atomicAdd(mass_words[word + 1u], whole);
}

// Dot products of all rows with four keys that lie one after the other in a page: Q is loaded once for all of them.
void dot_keys(uint page, Tile tile, uint token, out vec4 scores[ROWS]) {
  const uint base =
      (page * params.kv_heads + tile.kv_head) * kv_head_words16(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS);
  [[unroll]] for (uint r = 0u; r < ROWS; ++r) scores[r] = vec4(0.0);
  // Unrolled, every span of Q would live in registers all the time.
  [[dont_unroll]] for (uint span = 0u; span < K_SPANS; ++span) {
    load_lane_queries(span);
    [[unroll]] for (uint u = 0u; u < 4u; ++u) {
      uvec4 codes[8];
      uint high, scale;
      k_load_span(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS, base, (token + u) % PAGE_TOKENS, span, codes, high, scale);
      float dots[ROWS];
      dot_rows(codes, high, scale, dots);
      [[unroll]] for (uint r = 0u; r < ROWS; ++r) scores[r][u] += dots[r];
    }
  }
}

void main() {
  const uint lane = gl_LocalInvocationIndex;
  const AttendItem item = load_item(params.item_begin + gl_WorkGroupID.x);
  const AttendSeq seq = load_seq(item.seq);
  const Tile tile = tile_of(gl_WorkGroupID.y);
  uint begin = item.kv_begin;
  uint end = item.kv_end;
  hook_key_range(seq, item, begin, end);

  stage_queries(seq, item, tile, lane);
  if (lane < ROWS) {
    const uint query = row_query(item, lane);
    const uint head = row_head(tile, lane);
    const bool valid = row_is_valid(item, tile, lane);
    const float lse = valid ? lse_words[params.lse_offset + (seq.q_begin + query) * params.q_heads + head] : SOFTMAX_EMPTY;
    row_largest[lane] = lse;
    row_end[lane] = lse != SOFTMAX_EMPTY ? end : 0u;
    row_hooks[lane] = hook_row(seq, query, head);
  }
  barrier();
  if (HAS_CENTRE) {
    shift_rows(tile, lane);
    barrier();
  }
  const uint pages = params.pages_offset + seq.page_begin;  // one scalar instead of two
  // One count for all lanes: a loop that lanes leave one by one keeps their masks in scalar registers.
  for (uint first = begin; first < end; first += LOCAL_SIZE * 4u) {
    const uint token = first + lane * 4u;
    const uint page = token < end ? meta[pages + token / PAGE_TOKENS] : PAGE_UNMAPPED;
    if (page != PAGE_UNMAPPED) {
      vec4 scores[ROWS];
      dot_keys(local_page(page), tile, token, scores);
      vec4 mass = vec4(0.0);
      [[unroll]] for (uint row = 0u; row < ROWS; ++row) {
        const float lse = row_largest[row];
        const float shift = HAS_CENTRE ? row_sum[row] : 0.0;
        const uint keys_end = row_end[row];
        const HookRow hooks = row_hooks[row];
        [[unroll]] for (uint u = 0u; u < 4u; ++u) {
          const bool visible = token + u < keys_end && hook_visible(seq, hooks, token + u, 0.0);
          mass[u] += visible ? mass_of(hook_logit(hooks, token + u, scores[row][u] + shift, 0.0), lse) : 0.0;
        }
      }
      [[unroll]] for (uint u = 0u; u < 4u; ++u) add_mass(local_page(page), tile, token + u, mass[u]);
    }
  }
}
