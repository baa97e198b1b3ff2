// Dot products of the query rows with a chunk's keys. K_LANES neighbouring lanes, a team, share the K rows of a group
// of four tokens, each lane taking every K_LANES-th span of 32 elements; it keeps that span of all query rows in
// registers, so that K is loaded and decoded once for all rows. Scores of a group: pool[row * GROUPS + group], to be
// summed over SCORE_PLANES planes where a team cannot add by subgroup operations.
#ifndef KVANT_ATTEND_SCORES_GLSL
#define KVANT_ATTEND_SCORES_GLSL

KV_REGION(k, k_words16, k_words)
#ifdef USE_TOUCH
TOUCH_PAGES(k, k_words16, k_words)
#endif

const uint K_PASSES = (K_SPANS + K_LANES - 1u) / K_LANES;
const uint K_TEAMS = LOCAL_SIZE / K_LANES;

#include "attend_dot.glsl"

void store_scores(uint at, uint pass, uint page, vec4 scores) {
  if (page == PAGE_UNMAPPED) scores = vec4(SOFTMAX_EMPTY);
  if (K_PASSES == 1u) pool[at] = scores;
  else pool[at] = pass == 0u ? scores : pool[at] + scores;
}

void add_scores(AttendSeq seq, Tile tile, uint begin, uint groups, uint pass, uint lane) {
  const uint part = lane % K_LANES;
  const uint span = part + pass * K_LANES;
  const uint head_words = kv_head_words16(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS);
  const uint team = lane / K_LANES;
#ifdef USE_TOUCH
  uint turn = begin;  // the same in all lanes, which `token` is not
#endif
  for (uint g = team; g < (team < K_TEAMS ? groups : 0u); g += K_TEAMS) {
#ifdef USE_TOUCH
    if (TOUCH != 0u) {
      const uint next = TOUCH_NEXT(turn, K_TEAMS, begin + groups * 4u - 4u);
      k_touch(FORMAT_K, HEAD_DIM_K, (local_page(page_of(seq, next)) * params.kv_heads + tile.kv_head) * head_words, next % PAGE_TOKENS,
              TOUCH_TOKENS(K_TEAMS));
      turn += K_TEAMS * 4u;
    }
#endif
    const uint token = begin + g * 4u;
    const uint page = page_of(seq, token);
    const uint base = (local_page(page) * params.kv_heads + tile.kv_head) * head_words;
    vec4 scores[ROWS];
    [[unroll]] for (uint u = 0u; u < 4u; ++u) {
      uvec4 codes[8];
      uint high, scale;
      k_load_span(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS, base, (token + u) % PAGE_TOKENS, min(span, K_SPANS - 1u), codes,
                  high, scale);
      float dots[ROWS];
      dot_rows(codes, high, scale, dots);
      [[unroll]] for (uint r = 0u; r < ROWS; ++r) scores[r][u] = dots[r];
    }
#ifdef USE_SUBGROUP
    [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
      [[unroll]] for (uint step = 0u; step < 5u; ++step) {
        if ((1u << step) < K_LANES) scores[r] += subgroupShuffleXor(scores[r], 1u << step);
      }
    }
    // Every lane of the team has all sums: each stores its share of the rows.
    [[unroll]] for (uint r0 = 0u; r0 < ROWS; r0 += K_LANES) {
      vec4 mine = scores[r0];
      [[unroll]] for (uint r = r0 + 1u; r < min(r0 + K_LANES, ROWS); ++r) mine = part == r - r0 ? scores[r] : mine;
      if (r0 + part < ROWS) store_scores((r0 + part) * GROUPS + g, pass, page, mine);
    }
#else
    [[unroll]] for (uint r = 0u; r < ROWS; ++r) store_scores((part * ROWS + r) * GROUPS + g, pass, page, scores[r]);
#endif
  }
}
#endif
