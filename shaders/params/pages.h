// Push constants of the kernels that move tokens between tensors and pages: append, read, copy, convert, gather; and of rotate, which turns
// rows of a tensor.
#ifndef KVANT_PARAMS_PAGES_H
#define KVANT_PARAMS_PAGES_H
#include "types.h"
#ifdef __cplusplus
namespace kvant::params {
#endif

// append: tensors K, V [token][kv_head][head_dim] -> pages, quantized; slot = page * page_tokens + offset, negative = skip.
// Bindings: 0 K region of the slab, 1 V region, 2 K tensor, 3 V tensor, 4 slots (int), 5 MASS of the slab (attend.h), 6 means of K, then of V
// (where FLAGS have KVANT_CENTRE_*).
// Grid: x covers token * kv_head * row unit, y = side (0 K, 1 V).
struct AppendParams {
  uint tokens;
  uint kv_heads;
  uint page_begin;      // pages of the bound slab: page_begin .. page_begin + page_count - 1; slots elsewhere are skipped
  uint page_count;
  uint slots_offset;    // words of binding 4 to the first slot
  uint slots_stride;    // words from slot to slot: 2 where they are 64-bit integers, whose low words count
  uint k_offset;        // offsets and strides in elements of IO_TYPE_IN
  uint k_token_stride;
  uint k_head_stride;
  uint v_offset;
  uint v_token_stride;
  uint v_head_stride;
  uint mass_offset;     // words in MASS to the layer's first KV head, and from page to page; a stride of 0: no mass is counted
  uint mass_page_stride;
  uint v_means_offset;  // words of binding 6 to V's
  uint v_slots_ahead;   // words of binding 4 from a token's slot for K to its slot for V, modulo 2^32; 0: one slot for both
};

// read: pages -> tensor [token][kv_head][head_dim], dequantized, one side; a negative slot gives a row of zeros.
// Bindings: 0 region of the slab, 1 output tensor, 2 slots, 3 means of the side. FORMAT_K and HEAD_DIM_K name the side read.
struct ReadParams {
  uint tokens;
  uint kv_heads;
  uint page_begin;      // tokens of other slabs are left alone: the planner runs one dispatch per slab
  uint page_count;
  uint slots_offset;
  uint out_offset;      // elements of IO_TYPE_OUT
  uint out_token_stride;
  uint out_head_stride;
  uint write_zero_rows; // 1 in exactly one dispatch of a read: it writes the rows of negative slots
};

// Of the mean square of the rows' norms, what the square of the mean's norm must exceed to be worth subtracting.
#define KVANT_CENTRE_GAIN 0.1f

// means: the mean of a step's first rows by KV head, or zeros where it would not pay (docs/centring.md). Bindings: 0 K tensor, 1 V tensor, 2 slots,
// 3 means of K, then of V. Grid: x = KV head, y = side.
struct MeansParams {
  uint tokens;          // that are looked at, at least one of them with a slot
  float inverse;        // 1 / those with a slot
  uint slots_offset;
  uint k_offset;        // offsets and strides as append's
  uint k_token_stride;
  uint k_head_stride;
  uint v_offset;
  uint v_token_stride;
  uint v_head_stride;
  uint v_means_offset;
  uint sides;           // 1: K, 2: V, 3: both are written
};

// copy: whole pages of one side, word by word. Bindings: 0 source region, 1 destination region, 2 pairs (uint[2]: local source
// page, local destination page). Grid: x covers the words of a page in units of 16 bytes, y = pair.
struct CopyParams {
  uint pairs_offset;    // word offset in binding 2
  uint pair_count;
  uint page_words16;    // 16-byte words per page
};

// convert: pages of format FORMAT_K -> pages of format FORMAT_V, one side, head dimension HEAD_DIM_K.
// Bindings: 0 source region, 1 destination region, 2 triples (uint[3]: local source page, local destination page, tokens).
struct ConvertParams {
  uint triples_offset;
  uint triple_count;
  uint kv_heads;
};

// gather: tokens of one side from one slab into new pages, codes as they are. Bindings: 0 source region, 1 destination region,
// 2 map, page_tokens + 1 words a page: local destination page, then the local source slot of each token (negative = not from
// this slab).
struct GatherParams {
  uint map_offset;      // word offset in binding 2
  uint page_count;
  uint kv_heads;
};

// rotate: pairs of elements of f32 rows [row][head_dim], turned in place. Bindings: 0 rows, 1 angles (float[2]: cosine, sine).
struct RotateParams {
  uint rows;
  uint head_dim;
  uint pairs;           // pairs turned in each row
  uint halves;          // 0: pair i is (2i, 2i + 1); 1: (i, i + pairs)
  uint row_offset;      // first element in binding 0
  uint angles_offset;   // first pair in binding 1
};

#ifdef __cplusplus
}  // namespace kvant::params
#endif
#endif
