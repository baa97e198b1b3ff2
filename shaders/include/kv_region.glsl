// Access to the bytes of one side of a slab. GLSL cannot pass buffers, so macros generate the functions for a named
// buffer. The buffer is declared twice on one binding: `words16` as uvec4[] for 16-byte loads and stores, `words` as
// uint[] for high words, scales and codes of two bits. No byte is reached through both by one kernel, hence no aliasing.
//
// KV_REGION(name, words16, words) defines
//   void name_load_span(format, head_dim, page_tokens, base16, token, span, out codes[8], out high, out scale)
// KV_REGION_STORE(name, words16, words) defines
//   void name_store_block(format, head_dim, page_tokens, base16, token, block, codes[16], high, scale)
// base16: 16-byte word of the head's planes = (local page * kv_heads + head) * kv_head_words16(format, head_dim,
// page_tokens).
#ifndef KVANT_KV_REGION_GLSL
#define KVANT_KV_REGION_GLSL
#include "page_layout.glsl"

// Where `head_dim` may end inside a span, words past the row's end are neither loaded nor stored.
bool kv_rows_are_whole(uint format, uint head_dim) { return kv_row_pad(format) == 32u || head_dim % 32u == 0u; }

uint kv_scale_byte(uint format, uint head_dim, uint page_tokens, uint base16, uint token, uint block) {
  return (base16 * 4u + kv_scale_offset_words(format, head_dim, page_tokens)) * 4u +
         token * kv_scale_row_bytes(format, head_dim) + block * kv_scale_bytes(format);
}

#define KV_REGION(name, words16, words)                                                                               \
  void name##_load_span(uint format, uint head_dim, uint page_tokens, uint base16, uint token, uint span,             \
                        out uvec4 codes[8], out uint high, out uint scale) {                                          \
    if (kv_code_bits(format) < 4u) {                                                                                  \
      uint at = base16 * 4u + token * kv_code_row_words(format, head_dim) + span * 2u;                                \
      codes[0] = uvec4(words[at], words[at + 1u], 0u, 0u);                                                            \
      for (int i = 1; i < 8; ++i) codes[i] = uvec4(0u);                                                               \
    } else {                                                                                                          \
      uint count = kv_code_bits(format) / 4u;                                                                         \
      uint row16 = kv_code_row_words(format, head_dim) / 4u;                                                          \
      uint first = base16 + token * row16 + span * count;                                                             \
      uint left = kv_rows_are_whole(format, head_dim) ? 8u : row16 - span * count;                                    \
      codes[0] = words16[first];                                                                                      \
      codes[1] = count > 1u && left > 1u ? words16[first + 1u] : uvec4(0u);                                           \
      codes[2] = count > 2u && left > 2u ? words16[first + 2u] : uvec4(0u);                                           \
      codes[3] = count > 3u && left > 3u ? words16[first + 3u] : uvec4(0u);                                           \
      codes[4] = count > 4u && left > 4u ? words16[first + 4u] : uvec4(0u);                                           \
      codes[5] = count > 5u && left > 5u ? words16[first + 5u] : uvec4(0u);                                           \
      codes[6] = count > 6u && left > 6u ? words16[first + 6u] : uvec4(0u);                                           \
      codes[7] = count > 7u && left > 7u ? words16[first + 7u] : uvec4(0u);                                           \
    }                                                                                                                 \
    high = 0u;                                                                                                        \
    if (kv_high_bits(format) != 0u) {                                                                                 \
      high = words[base16 * 4u + kv_high_offset_words(format, head_dim, page_tokens) +                                \
                   token * kv_high_row_words(format, head_dim) + span];                                               \
    }                                                                                                                 \
    scale = 0u;                                                                                                       \
    if (kv_scale_bytes(format) != 0u) {                                                                               \
      uint at = kv_scale_byte(format, head_dim, page_tokens, base16, token, span * 32u / kv_block(format));           \
      scale = words[at >> 2];                                                                                         \
      if (kv_scale_bytes(format) == 2u) scale = (scale >> ((at & 2u) * 8u)) & 0xFFFFu;                                \
      if (kv_scale_bytes(format) == 1u) scale = (scale >> ((at & 3u) * 8u)) & 0xFFu;                                  \
    }                                                                                                                 \
  }

// A scale smaller than a word shares it with other blocks, perhaps of other tokens and invocations: it is cleared and
// set by atomics on its own bits alone, so that the order among invocations does not matter.
#define KV_REGION_STORE(name, words16, words)                                                                         \
  void name##_store_block(uint format, uint head_dim, uint page_tokens, uint base16, uint token, uint block,          \
                          uvec4 codes[16], uvec2 high, uint scale) {                                                  \
    uint spans = kv_block(format) / 32u;                                                                              \
    if (kv_code_bits(format) < 4u) {                                                                                  \
      uint at = base16 * 4u + token * kv_code_row_words(format, head_dim) + block * spans * 2u;                       \
      words[at] = codes[0].x;                                                                                         \
      words[at + 1u] = codes[0].y;                                                                                    \
    } else {                                                                                                          \
      uint count = spans * kv_code_bits(format) / 4u;                                                                 \
      uint row16 = kv_code_row_words(format, head_dim) / 4u;                                                          \
      uint first = base16 + token * row16 + block * count;                                                            \
      uint left = row16 - block * count;                                                                              \
      for (uint i = 0u; i < count; ++i) {                                                                             \
        if (i < left) words16[first + i] = codes[i];                                                                  \
      }                                                                                                               \
    }                                                                                                                 \
    if (kv_high_bits(format) != 0u) {                                                                                 \
      uint row = kv_high_row_words(format, head_dim);                                                                 \
      uint at = base16 * 4u + kv_high_offset_words(format, head_dim, page_tokens) + token * row + block * spans;      \
      words[at] = high.x;                                                                                             \
      if (spans == 2u && block * 2u + 1u < row) words[at + 1u] = high.y;                                              \
    }                                                                                                                 \
    if (kv_scale_bytes(format) != 0u) {                                                                               \
      uint at = kv_scale_byte(format, head_dim, page_tokens, base16, token, block);                                   \
      if (kv_scale_bytes(format) == 4u) {                                                                             \
        words[at >> 2] = scale;                                                                                       \
      } else {                                                                                                        \
        uint shift = (at & 3u) * 8u;                                                                                  \
        uint mask = kv_scale_bytes(format) == 2u ? 0xFFFFu : 0xFFu;                                                   \
        atomicAnd(words[at >> 2], ~(mask << shift));                                                                  \
        atomicOr(words[at >> 2], scale << shift);                                                                     \
      }                                                                                                               \
    }                                                                                                                 \
  }

#endif
