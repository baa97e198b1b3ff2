// What attention does to a logit between Q.K and softmax: scale, soft-cap, ALiBi, bias, and who may see whom. A feature
// is a flag in FLAGS, its fields in AttendParams or AttendSeq, and its lines here; flags are constants, so unused lines
// cost nothing.
#ifndef KVANT_ATTENTION_HOOKS_GLSL
#define KVANT_ATTENTION_HOOKS_GLSL
#include "numeric.glsl"
#include "softmax_state.glsl"

#define HAS_CAUSAL ((FLAGS & KVANT_ATTEND_CAUSAL) != 0u)
#define HAS_WINDOW ((FLAGS & KVANT_ATTEND_WINDOW) != 0u)
#define HAS_SINKS ((FLAGS & KVANT_ATTEND_SINKS) != 0u)
#define HAS_ALIBI ((FLAGS & KVANT_ATTEND_ALIBI) != 0u)
#define HAS_SOFT_CAP ((FLAGS & KVANT_ATTEND_SOFT_CAP) != 0u)
#define HAS_CUSTOM_MASK ((FLAGS & KVANT_ATTEND_CUSTOM_MASK) != 0u)
#define HAS_LSE ((FLAGS & KVANT_ATTEND_LSE) != 0u)
#define HAS_CENTRE ((FLAGS & KVANT_CENTRE_K) != 0u)
#ifdef KVANT_SCORE
#define HAS_BIAS false
#else
#define HAS_BIAS ((FLAGS & KVANT_ATTEND_BIAS) != 0u)
#endif
// Rows of one item can differ in what they see if they belong to different queries and some rule depends on the query,
// or if each has a bias of its own.
#define MASK_FLAGS (KVANT_ATTEND_CAUSAL | KVANT_ATTEND_WINDOW | KVANT_ATTEND_CUSTOM_MASK)
#define ROWS_DIFFER ((FLAGS & (QUERIES_PER_ITEM > 1u ? MASK_FLAGS | KVANT_ATTEND_BIAS : KVANT_ATTEND_BIAS)) != 0u)

// Facts of a row that hooks need.
struct HookRow {
  int position;     // of the query in its sequence
  uint query;       // index in its sequence
  float slope;      // ALiBi
#ifndef KVANT_SCORE
  uint bias;        // element of BIAS for the sequence's first key
#endif
};

// Sink logits and slopes lie in META where HEADS holds the means of K.
float head_fact(uint at) { return HAS_CENTRE ? uintBitsToFloat(meta[at]) : heads[at]; }

HookRow hook_row(AttendSeq seq, uint query, uint q_head) {
  HookRow row;
  row.position = seq.q_pos_begin + int(query);
  row.query = query;
  row.slope = HAS_ALIBI ? head_fact(params.slopes_offset + q_head) : 0.0;
#ifndef KVANT_SCORE
  row.bias = 0u;
  if (HAS_BIAS)
    row.bias = seq.mask_offset + query * params.bias_query_stride + q_head % params.bias_heads * params.bias_head_stride;
#endif
  return row;
}

#ifndef KVANT_SCORE
// What BIAS says of a key that the item holds, for both hooks below. Rows may begin at odd elements.
float hook_bias(HookRow row, uint token, bool held) {
  float bias = 0.0;
  if (HAS_BIAS) {
    const uint at = row.bias + token;
    if (held) bias = f16_to_f32((lse_or_bias_words[at >> 1] >> ((at & 1u) << 4)) & 0xFFFFu);
  }
  return bias;
}
#endif

bool hook_visible(AttendSeq seq, HookRow row, uint token, float bias) {
  bool visible = true;
  if (HAS_CAUSAL) visible = int(token) <= row.position;
  if (HAS_CUSTOM_MASK) {
    const bool in_mask = seq.mask_row_words != 0u && token >= seq.mask_kv_begin;
    const uint bit = in_mask ? token - seq.mask_kv_begin : 0u;
    const bool covered = in_mask && (bit >> 5) < seq.mask_row_words;
    const uint word = covered ? meta[seq.mask_offset + row.query * seq.mask_row_words + (bit >> 5)] : 0u;
    if (in_mask) visible = ((word >> (bit & 31u)) & 1u) != 0u;
  }
  if (HAS_WINDOW) visible = visible && (int(token) > row.position - int(params.window) || token < params.window_sinks);
  if (HAS_BIAS) visible = visible && bias != SOFTMAX_EMPTY;
  return visible;
}

// The logit of a visible key.
float hook_logit(HookRow row, uint token, float dot_product, float bias) {
  float logit = dot_product * params.scale;
  if (HAS_SOFT_CAP) logit = params.soft_cap * tanh(logit / params.soft_cap);
  if (HAS_BIAS) logit += HAS_ALIBI ? row.slope * bias : bias;
  else if (HAS_ALIBI) logit += row.slope * float(int(token) - row.position);
  return logit;
}

// Narrows [begin, end) to the keys that some query of the item may see: causal and window rules by position alone.
void hook_key_range(AttendSeq seq, AttendItem item, inout uint begin, inout uint end) {
  const int first = seq.q_pos_begin + int(item.q_begin);
  const int last = first + int(item.q_count) - 1;
  // Keys that a custom mask decides may lie in a query's future.
  const bool by_mask = HAS_CUSTOM_MASK && seq.mask_row_words != 0u && end > seq.mask_kv_begin;
  if (HAS_CAUSAL && !by_mask) end = min(end, last < 0 ? 0u : uint(last) + 1u);
  if (HAS_WINDOW && params.window_sinks == 0u) {
    const int oldest = first - int(params.window) + 1;
    if (oldest > 0) begin = max(begin, min(uint(oldest), end) / PAGE_TOKENS * PAGE_TOKENS);
  }
}
#endif
