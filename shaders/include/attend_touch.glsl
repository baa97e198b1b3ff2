// Touching lines of K and V before they are gathered, for CPU drivers. llvmpipe loads a row by gathers, each of which waits for
// memory, and the processor does not fetch ahead for them. Where an index is the same in all lanes it makes one plain load: one of each
// line, a turn of the teams ahead, and the gathers find their lines in the cache. What the loads bring is of no use.
#ifndef KVANT_ATTEND_TOUCH_GLSL
#define KVANT_ATTEND_TOUCH_GLSL

uint touched = 0u;

// TOUCH_PAGES(name, words16, words) defines
//   void name_touch(format, head_dim, base16, token, tokens)
// for the rows `token` .. `token + tokens - 1` of a page's head, all arguments the same in all lanes. tokens is a power of two and
// divides token and PAGE_TOKENS. The lines of codes are reached through words16 in every format; they are only read.
#define TOUCH_PAGES(name, words16, words)                                                                              \
  void name##_touch(uint format, uint head_dim, uint base16, uint token, uint tokens) {                                \
    const uint code_words = kv_code_row_words(format, head_dim);                                                       \
    const uint code_at = base16 + token * code_words / 4u;                                                             \
    [[unroll]] for (uint i = 0u; i < tokens * code_words; i += 16u) touched |= words16[code_at + i / 4u].x;            \
    const uint high_words = kv_high_row_words(format, head_dim);                                                       \
    const uint high_at = base16 * 4u + kv_high_offset_words(format, head_dim, PAGE_TOKENS) + token * high_words;       \
    [[unroll]] for (uint i = 0u; i < tokens * high_words; i += 16u) touched |= words[high_at + i];                     \
    const uint scale_bytes = kv_scale_row_bytes(format, head_dim);                                                     \
    const uint scale_at = kv_scale_byte(format, head_dim, PAGE_TOKENS, base16, token, 0u) / 4u;                        \
    [[unroll]] for (uint i = 0u; i < tokens * scale_bytes; i += 64u) touched |= words[scale_at + i / 4u];              \
  }

// To be asked once at the end: false, but no compiler knows.
bool touched_in_vain() { return touched == 0x3ADC0FFEu && params.kv_heads == 0u; }

// Rows that `teams` teams take in a turn, four each, as far as they lie in one page.
#define TOUCH_TOKENS(teams) min((teams) * 4u, PAGE_TOKENS)
// The first row of the turn that follows the one at `token`; of the last turn the last rows once more.
#define TOUCH_NEXT(token, teams, last) (min((token) + (teams) * 4u, last) / TOUCH_TOKENS(teams) * TOUCH_TOKENS(teams))

#endif
