// Push constants of the kernels that read and write an engine's own tensors, in canonical bytes (docs/formats/) and with strides in
// bytes: transfer, import, extract. Bindings of such tensors are words that bytes are taken out of; every offset and stride of a type with
// elements or blocks of an even size is even.
#ifndef KVANT_PARAMS_STRIDED_H
#define KVANT_PARAMS_STRIDED_H
#include "types.h"
#ifdef __cplusplus
namespace kvant::params {
#endif

// Tuning constants of transfer.
#define KVANT_SPEC_TRANSFER_UNIT KVANT_SPEC_TUNE0   // elements that an invocation takes: 32, 2 or 1
#define KVANT_SPEC_TRANSFER_INDEX KVANT_SPEC_TUNE1  // words of an index: 0 (rows are not looked up), 1 or 2 (the low word counts)

// transfer: elements of tensor SOURCE in their order -> the elements of tensor DESTINATION in theirs; dimension 0 runs fastest. Formats:
// FORMAT_K of SOURCE, FORMAT_V of DESTINATION; f32, f16, bf16 and the block formats of ggml. The same format on both sides moves bits,
// another one goes through f32.
// With indices both have the shape of DESTINATION's rows as looked up: row (i1, i2, i3) is taken from, or put to, row
// IDX[i1, i2 % idx_ne1, i3 % idx_ne2] of dimension 1 of the side that `indexed` names; rows beyond its `rows` are left out.
// Units of 32 elements begin at multiples of 32 of dimension 0 of the side in blocks. Units of 2 are for a 16-bit DESTINATION whose words
// they fill; units of 1 put halves of words in place by atomics.
// Bindings: 0 SOURCE, 1 DESTINATION, 2 IDX. Grid: x covers the units, LOCAL_SIZE a group, y = further 65535 * LOCAL_SIZE units.
struct TransferParams {
  uint units;           // of all rows together
  uint src_offset;      // bytes in binding 0
  uint src_ne0;         // elements; dimension 3 is what remains
  uint src_ne1;
  uint src_ne2;
  uint src_nb0;         // bytes from element to element, or from block to block
  uint src_nb1;
  uint src_nb2;
  uint src_nb3;
  uint dst_offset;      // bytes in binding 1
  uint dst_ne0;
  uint dst_ne1;
  uint dst_ne2;
  uint dst_nb0;
  uint dst_nb1;
  uint dst_nb2;
  uint dst_nb3;
  uint indexed;         // 0: DESTINATION's rows are looked up, 1: SOURCE's; without meaning if there are no indices
  uint rows;            // of the side that is looked up
  uint idx_offset;      // words in binding 2
  uint idx_nb0;         // words from index to index
  uint idx_nb1;
  uint idx_nb2;
  uint idx_ne1;
  uint idx_ne2;
};

// import: rows of canonical bytes -> planar pages, codes as they are: one side, format FORMAT_K, head dimension HEAD_DIM_K. Token t of
// sequence s goes to page first_page + s * seq_pages + t / PAGE_TOKENS, its slot t % PAGE_TOKENS.
// Bindings: 0 region of pages, 1 source bytes. Grid: x covers tokens * kv_heads * blocks of a row, y = sequence.
// extract: the same, the other way: binding 1 holds the destination.
struct ImportParams {
  uint tokens;
  uint kv_heads;
  uint offset;          // bytes, in binding 1
  uint token_stride;    // bytes
  uint head_stride;
  uint seq_stride;
  uint first_page;
  uint seq_pages;
};

#ifdef __cplusplus
static_assert(sizeof(TransferParams) <= 128);
}  // namespace kvant::params
#endif
#endif
