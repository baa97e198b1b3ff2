// Push constants of the kernels that read and write an engine's own tensors, in canonical bytes (docs/formats/) and with strides in
// bytes: transfer, import, extract, rope, hadamard. Bindings of such tensors are words that bytes are taken out of; every offset and stride of a type with
// elements or blocks of an even size is even.
#ifndef KVANT_PARAMS_STRIDED_H
#define KVANT_PARAMS_STRIDED_H
#include "types.h"
#ifdef __cplusplus
#include <cmath>
namespace kvant::params {
#endif

// Tuning constants of transfer.
#define KVANT_SPEC_TRANSFER_UNIT KVANT_SPEC_TUNE0   // elements that an invocation takes: 32, 2 or 1
#define KVANT_SPEC_TRANSFER_INDEX KVANT_SPEC_TUNE1  // words of an index: 0 (rows are not looked up), 1 or 2 (the low word counts)

// transfer: elements of tensor SOURCE in their order -> the elements of tensor DESTINATION in theirs; dimension 0 runs fastest. Formats:
// FORMAT_K of SOURCE, FORMAT_V of DESTINATION; f32, f16, bf16 and the block formats of ggml. The same format on both sides moves bits,
// another one goes through f32.
// With indices both have the shape of DESTINATION's rows as looked up: row (i1, i2, i3) is taken from, or put to, row
// IDX[i1, i2 % idx_ne1, i3 % idx_ne2] of dimension 1 of the side that `indexed` names; rows outside first_row .. first_row + rows - 1 are left out.
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
  uint first_row;       // number of the first row that the looked-up side's binding holds
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

// Tuning constants of rope.
#define KVANT_SPEC_ROPE_UNIT KVANT_SPEC_TUNE0     // pairs that an invocation turns: 1, or 2 neighbours where `distance` is not 1
#define KVANT_SPEC_ROPE_FACTORS KVANT_SPEC_TUNE1  // 1: each pair's frequency is divided by its number in binding 4

// rope: rows of SOURCE [batch][token][row][element], pairs of elements turned by position * frequency -> DESTINATION of the same type
// (FORMAT_K: f32, f16 or bf16), elements side by side in either; all in one buffer and layout: in place. Pair i of a row is
// (first + 2i, first + 2i + 1) where `distance` is 1, else (first + i, first + i + distance).
// Bindings: 0 SOURCE, 1 DESTINATION, 2 positions (int[stream][token]), 3 frequencies (RopeFrequency[pair]), 4 factors (float[pair]).
// Grid: x covers units of pairs and of two copied elements of every token, looping by its width; y = rows, looping by its height.
struct RopeParams {
  uint rows;
  uint tokens;
  uint batches;            // have the same positions
  uint pairs;              // turned in each row; a multiple of ROPE_UNIT
  uint first;              // element of a row
  uint distance;
  uint rest;               // elements of a row in no pair, which are copied; 0 in place
  uint src_offset;         // bytes in binding 0
  uint src_nb1;            // bytes from row to row, token to token, batch to batch
  uint src_nb2;
  uint src_nb3;
  uint dst_offset;         // bytes in binding 1
  uint dst_nb1;
  uint dst_nb2;
  uint dst_nb3;
  uint positions_offset;   // words in binding 2
  uint positions_stride;   // words from stream to stream
  uint frequencies_offset; // words in binding 3
  uint factors_offset;     // words in binding 4
  float scale;             // of cosine and sine
};

// Turns per position: whole ones, and the fraction in units of 2^-64. The position is that of the pair's stream.
struct RopeFrequency {
  uint low;
  uint high;
  uint whole;
  uint stream;
};

// hadamard: rows of 2^k elements of f32 or f16 (FORMAT_K), HEAD_DIM_K of them, k <= 9: each times the Hadamard matrix of that size (of
// Sylvester: element (i, j) is -1 where i and j share an odd number of bits, else 1), then times `scale` -> f32. Elements lie side by side.
// Bindings: 0 SOURCE, 1 DESTINATION. Grid: a workgroup takes 8 * LOCAL_SIZE elements of all rows; y = further 65535 of them.
struct HadamardParams {
  uint rows;            // of all planes together
  uint ne1;             // rows of a plane; dimension 3 is what remains
  uint ne2;
  uint src_offset;      // bytes, here and below; all of DESTINATION's are whole words
  uint src_nb1;
  uint src_nb2;
  uint src_nb3;
  uint dst_offset;
  uint dst_nb1;
  uint dst_nb2;
  uint dst_nb3;
  float scale;
};

#ifdef __cplusplus
static_assert(sizeof(TransferParams) <= 128 && sizeof(RopeParams) <= 128 && sizeof(HadamardParams) <= 128);

// Of turns in [0, 2^32).
inline RopeFrequency rope_frequency(double turns, uint stream) {
  const double whole = std::floor(turns), fraction = (turns - whole) * 4294967296.0, high = std::floor(fraction);
  return {static_cast<uint>((fraction - high) * 4294967296.0), static_cast<uint>(high), static_cast<uint>(whole), stream};
}
}  // namespace kvant::params
#endif
#endif
