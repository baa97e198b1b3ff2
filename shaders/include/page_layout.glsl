// The planar layout of one side of a page, as page_layout() in host/formats.hpp: per KV head a code plane, a high plane
// and a scale plane, each [token][row]. Functions of the format constant; the driver folds them.
#ifndef KVANT_PAGE_LAYOUT_GLSL
#define KVANT_PAGE_LAYOUT_GLSL
#include "format_dispatch.glsl"

uint kv_spans(uint head_dim) { return (head_dim + 31u) / 32u; }  // spans of 32 elements in a row

uint kv_blocks(uint format, uint head_dim) {
  return (head_dim + kv_block(format) - 1u) / kv_block(format);
}

// A row of codes: whole 16-byte words, but for formats of two bits, whose spans have 8 bytes.
uint kv_code_row_words(uint format, uint head_dim) {
  uint pad = kv_row_pad(format);
  return (head_dim + pad - 1u) / pad * pad * kv_code_bits(format) / 32u;
}

uint kv_high_row_words(uint format, uint head_dim) { return kv_high_bits(format) == 0u ? 0u : kv_spans(head_dim); }

uint kv_scale_row_bytes(uint format, uint head_dim) { return kv_blocks(format, head_dim) * kv_scale_bytes(format); }

// Offsets from the head's start, and the whole of a head.
uint kv_high_offset_words(uint format, uint head_dim, uint page_tokens) {
  return page_tokens * kv_code_row_words(format, head_dim);
}

uint kv_scale_offset_words(uint format, uint head_dim, uint page_tokens) {
  return kv_high_offset_words(format, head_dim, page_tokens) + page_tokens * kv_high_row_words(format, head_dim);
}

uint kv_head_words16(uint format, uint head_dim, uint page_tokens) {
  return kv_scale_offset_words(format, head_dim, page_tokens) / 4u +
         page_tokens * kv_scale_row_bytes(format, head_dim) / 16u;
}

#endif
