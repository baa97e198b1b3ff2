// Work items, per-sequence facts and push constants of the attention kernels.
#ifndef KVANT_PARAMS_ATTEND_H
#define KVANT_PARAMS_ATTEND_H
#include "types.h"
#ifdef __cplusplus
namespace kvant::params {
#endif

// Feature bits: specialization constant KVANT_SPEC_FLAGS.
#define KVANT_ATTEND_CAUSAL 1u       // key position <= query position
#define KVANT_ATTEND_WINDOW 2u       // key position > query position - window (or key position < window_sinks)
#define KVANT_ATTEND_SINKS 4u        // a logit per query head joins the softmax's denominator
#define KVANT_ATTEND_ALIBI 8u        // slope[head] * (key position - query position) is added to the logit
#define KVANT_ATTEND_SOFT_CAP 16u    // logit = cap * tanh(logit / cap), before ALiBi and masks
#define KVANT_ATTEND_CUSTOM_MASK 32u // bit mask per query and key from mask_kv_begin on; replaces the causal rule there
#define KVANT_ATTEND_LSE 64u         // also write the log-sum-exp (natural logarithm) per query and head
// An f16 number per query, head and key from BIAS is added to the logit after scale and soft-cap; minus infinity hides the key.
// With ALIBI: slope[head] * bias, instead of the distance. Excludes CUSTOM_MASK, whose mask_offset it uses, and LSE, whose binding
// it takes; score does not know it.
#define KVANT_ATTEND_BIAS 128u

// A sequence of the batch, in META. Key position = logical token index in the sequence.
struct AttendSeq {
  uint kv_len;          // keys visible to the batch, fresh ones included
  uint page_begin;      // index of the sequence's first page in kv_indices
  uint q_begin;         // first query row of the sequence in Q and OUT
  uint q_len;
  int q_pos_begin;      // position of the first query (kv_len - q_len for self-attention)
  uint mask_offset;     // word offset in META of the custom mask's first row; BIAS: element offset of the sequence in BIAS
  uint mask_row_words;  // words per query row
  uint mask_kv_begin;   // keys before it follow the causal rule; bit (kv - mask_kv_begin) of the query's row decides the rest
};

// One workgroup column of attention: queries q_begin .. q_begin + q_count - 1 over keys kv_begin .. kv_end - 1.
struct AttendItem {
  uint seq;
  uint q_begin;         // relative to the sequence
  uint q_count;         // 1 .. QUERIES_PER_ITEM
  uint kv_begin;        // logical tokens; kv_begin is a multiple of PAGE_TOKENS
  uint kv_end;          // exclusive; kv_begin == kv_end is legal and gives an empty partial
  uint partial_row;     // first row in PARTIAL, or KVANT_ITEM_FINAL: the item is the only one of its queries
  uint reserved0;
  uint reserved1;
};
#define KVANT_ITEM_FINAL 0xFFFFFFFFu

// A query whose partials are merged. Row of split s and query head h: partial_row + s * split_stride + h.
struct MergeItem {
  uint partial_row;
  uint split_stride;
  uint split_count;
  uint q_row;           // row in OUT and LSE
};

// attend_decode, attend_prefill. Bindings: 0 K region, 1 V region, 2 Q [q][q_head][head_dim_k], 3 OUT [q][q_head][head_dim_v],
// 4 META (AttendSeq[], AttendItem[], kv_indices, masks, by word offset), 5 PARTIAL, 6 HEADS (per query head: sink logits, then
// ALiBi slopes; with KVANT_CENTRE_K the means of K, and what else is said to lie in HEADS lies in META), 7 LSE [q][q_head], or, with KVANT_ATTEND_BIAS, BIAS.
// BIAS: f16, finite numbers and minus infinity. Its element for query i of a sequence, query head h and key t:
// mask_offset + i * bias_query_stride + (h % bias_heads) * bias_head_stride + t, odd offsets and strides included. Only keys of
// the item are looked up, but as halves of 32-bit words: the binding's size is a multiple of 4. AttendSeq::mask_row_words is 0,
// so that the planner looks for no bit mask.
// PARTIAL: rows of head_dim_v floats (softmax-weighted mean of V over the item's keys; zeros if none), and from lse_offset on
// one float per row: log-sum-exp of the item's logits (-infinity if none). Row of query i (relative to item) and query head h:
// partial_row + i * q_heads + h.
// Grid: x = items, y = kv_heads * ceil(group / HEADS_PER_TILE), group = q_heads / kv_heads.
struct AttendParams {
  uint item_begin;      // first item of this dispatch, in items
  uint items_offset;    // word offsets in META
  uint seqs_offset;
  uint pages_offset;    // kv_indices
  uint page_begin;      // first page id of the bound slab; kv_indices of this dispatch's items lie in the slab
  uint q_heads;
  uint kv_heads;
  uint q_offset;        // offsets and strides in elements
  uint q_token_stride;
  uint q_head_stride;
  uint out_offset;
  uint out_token_stride;
  uint out_head_stride;
  uint partial_lse_offset;  // word offset of the log-sum-exps in PARTIAL
  uint lse_offset;      // word offset in LSE; [q][q_head] contiguous
  uint sinks_offset;    // word offsets in HEADS
  uint slopes_offset;
  float scale;
  float soft_cap;
  uint window;          // tokens, the query's own included
  uint window_sinks;    // first tokens that stay visible outside the window
  uint mass_offset;     // score: words in MASS to the layer's first KV head, and from page to page
  uint mass_page_stride;
  uint bias_query_stride;  // elements
  uint bias_head_stride;
  uint bias_heads;      // 1: all heads share their rows; with KVANT_ATTEND_BIAS never 0
};

// score: adds what each key weighs in the softmax of the item's queries to its mass. Items, META, Q and HEADS as in the attention
// that was computed before, whose log-sum-exps it reads. Bindings: 0 K region, 1 MASS, 2 Q, 4 META, 6 HEADS, 7 LSE.
// MASS: a fixed-point number of 64 bits per token of a page and KV head, low word first, in units of 2^-32 of a query head's
// attention: [page][kv_head][PAGE_TOKENS]. Sums of whole numbers: their order does not matter. Grid: as attend_decode.

// attend_merge. Bindings: 0 PARTIAL, 1 OUT, 2 META (MergeItem[]), 3 HEADS, 4 LSE, 5 means of V. Grid: x = merge items, y = q_heads.
struct MergeParams {
  uint item_begin;
  uint items_offset;
  uint q_heads;
  uint group;           // query heads of a KV head
  uint partial_lse_offset;
  uint out_offset;
  uint out_token_stride;
  uint out_head_stride;
  uint lse_offset;
  uint sinks_offset;
};

#ifdef __cplusplus
static_assert(sizeof(AttendSeq) == 32 && sizeof(AttendItem) == 32 && sizeof(MergeItem) == 16);
static_assert(sizeof(AttendParams) <= 128);
}  // namespace kvant::params
#endif
#endif
