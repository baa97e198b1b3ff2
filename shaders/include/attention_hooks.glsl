// What attention does to a logit between Q.K and softmax: scale, soft-cap, ALiBi, and who may see whom. A feature is a
// flag in FLAGS, its fields in AttendParams or AttendSeq, and its lines here; flags are constants, so unused lines cost
// nothing.
#ifndef KVANT_ATTENTION_HOOKS_GLSL
#define KVANT_ATTENTION_HOOKS_GLSL

#define HAS_CAUSAL ((FLAGS & KVANT_ATTEND_CAUSAL) != 0u)
#define HAS_WINDOW ((FLAGS & KVANT_ATTEND_WINDOW) != 0u)
#define HAS_SINKS ((FLAGS & KVANT_ATTEND_SINKS) != 0u)
#define HAS_ALIBI ((FLAGS & KVANT_ATTEND_ALIBI) != 0u)
#define HAS_SOFT_CAP ((FLAGS & KVANT_ATTEND_SOFT_CAP) != 0u)
#define HAS_CUSTOM_MASK ((FLAGS & KVANT_ATTEND_CUSTOM_MASK) != 0u)
#define HAS_LSE ((FLAGS & KVANT_ATTEND_LSE) != 0u)
// Rows of one item can differ in what they see only if they belong to different queries and some rule depends on the
// query.
#define MASK_FLAGS (KVANT_ATTEND_CAUSAL | KVANT_ATTEND_WINDOW | KVANT_ATTEND_CUSTOM_MASK)
#define ROWS_DIFFER ((QUERIES_PER_ITEM > 1u ? FLAGS & MASK_FLAGS : 0u) != 0u)

// Facts of a row that hooks need.
struct HookRow {
  int position;     // of the query in its sequence
  uint query;       // index in its sequence
  float slope;      // ALiBi
};

HookRow hook_row(AttendSeq seq, uint query, uint q_head) {
  HookRow row;
  row.position = seq.q_pos_begin + int(query);
  row.query = query;
  row.slope = HAS_ALIBI ? heads[params.slopes_offset + q_head] : 0.0;
  return row;
}

bool hook_visible(AttendSeq seq, HookRow row, uint token) {
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
  return visible;
}

// The logit of a visible key.
float hook_logit(HookRow row, uint token, float dot_product) {
  float logit = dot_product * params.scale;
  if (HAS_SOFT_CAP) logit = params.soft_cap * tanh(logit / params.soft_cap);
  if (HAS_ALIBI) logit += row.slope * float(int(token) - row.position);
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
