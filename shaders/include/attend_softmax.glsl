// Softmax over a chunk: scores in pool become logits, then weights exp(logit - largest). ROW_LANES lanes work on a row.
#ifndef KVANT_ATTEND_SOFTMAX_GLSL
#define KVANT_ATTEND_SOFTMAX_GLSL

const uint ROW_LANES = LOCAL_SIZE / STAGED_ROWS;

// Logits of the lane's tokens, in place; returns the largest.
float make_logits(AttendSeq seq, HookRow hooks, uint begin, uint end, uint groups, uint row, uint row_lane) {
  float largest = SOFTMAX_EMPTY;
  const float shift = HAS_CENTRE ? row_sum[row] : 0.0;
  for (uint g = row_lane; g < groups; g += ROW_LANES) {
    vec4 x = pool[row * SCORE_ROW + g];
    const bool kept = score_is_kept(g);
    [[unroll]] for (uint plane = 1u; plane < SCORE_PLANES; ++plane) x += pool[(plane * ROWS + row) * GROUPS + g];
    [[unroll]] for (uint u = 0u; u < 4u; ++u) {
      const uint token = begin + g * 4u + u;
      const float bias = hook_bias(hooks, token, token < end);
      const bool visible = token < end && kept && x[u] != SOFTMAX_EMPTY && hook_visible(seq, hooks, token, bias);
      x[u] = visible ? hook_logit(hooks, token, x[u] + shift, bias) : SOFTMAX_EMPTY;
      largest = max(largest, x[u]);
    }
    pool[row * SCORE_ROW + g] = x;
  }
  return largest;
}

// Weights of the lane's tokens, in place; returns their sum.
float make_weights(float largest, uint groups, uint row, uint row_lane) {
  float sum = 0.0;
  for (uint g = row_lane; g < groups; g += ROW_LANES) {
    vec4 x = pool[row * SCORE_ROW + g];
    [[unroll]] for (uint u = 0u; u < 4u; ++u) {
      x[u] = softmax_weight(x[u], largest);
      sum += x[u];
    }
    pool[row * SCORE_ROW + g] = x;
  }
  return sum;
}
#endif
