// Canonical bytes (docs/formats/) of the formats without a scale and of ggml's blocks of 32: between them and the span form of
// format_<name>.glsl, and their place in a buffer. GLSL cannot pass buffers, so macros generate the functions for a named uint[].
//
// A block is [scale][word of fifth bits, if the format has them][codes] and begins at any even byte; all but the scale is its *body*,
// canonical_words(format) words. Halves of words at its ends belong to neighbours, which other invocations write.
//
// CANONICAL_INPUT(name, words) defines, for even byte addresses,
//   uint name_half(uint at)                                                       16 bits
//   uint name_word(uint at)                                                       32 bits
//   void name_load_block(uint format, uint at, out uint body[8], out uint scale)
// CANONICAL_OUTPUT(name, words) defines
//   void name_store_half(uint at, uint half)                                      by atomics on these bits alone
//   void name_store_word(uint at, uint word)                                      by atomics where it lies in two words
//   void name_store_block(uint format, uint at, uint body[8], uint scale)
#ifndef KVANT_CANONICAL_GLSL
#define KVANT_CANONICAL_GLSL
#include "format_dispatch.glsl"
#include "packing.glsl"

uint canonical_words(uint format) { return kv_high_bits(format) + kv_code_bits(format); }

// Bytes as nibbles in order: the low halves of two words, eight elements.
uint bytes_to_nibbles(uvec2 bytes) {
  bytes &= 0x0F0F0F0Fu;
  bytes = (bytes | (bytes >> 4)) & 0x00FF00FFu;
  bytes = (bytes | (bytes >> 8)) & 0x0000FFFFu;
  return bytes.x | (bytes.y << 16);
}

// Byte j of a 4-bit body: element j in the low half, element j + 16 in the high half.
void canonical_unpack(uint format, uint body[8], out uvec4 codes[8], out uint high) {
  for (int i = 0; i < 8; ++i) codes[i] = uvec4(0u);
  high = kv_high_bits(format) != 0u ? body[0] : 0u;
  if (kv_code_bits(format) == 8u) {
    codes[0] = uvec4(body[0], body[1], body[2], body[3]);
    codes[1] = uvec4(body[4], body[5], body[6], body[7]);
  } else {
    bool fives = kv_high_bits(format) != 0u;
    uvec4 bytes = fives ? uvec4(body[1], body[2], body[3], body[4]) : uvec4(body[0], body[1], body[2], body[3]);
    codes[0] = uvec4(bytes_to_nibbles(bytes.xy), bytes_to_nibbles(bytes.zw), bytes_to_nibbles(bytes.xy >> 4),
                     bytes_to_nibbles(bytes.zw >> 4));
  }
}

void canonical_pack(uint format, uvec4 codes0, uvec4 codes1, uint high, out uint body[8]) {
  for (int i = 0; i < 8; ++i) body[i] = 0u;
  if (kv_code_bits(format) == 8u) {
    for (int i = 0; i < 4; ++i) {
      body[i] = codes0[i];
      body[i + 4] = codes1[i];
    }
  } else {
    uvec2 low = nibbles_to_bytes(codes0.x) | (nibbles_to_bytes(codes0.z) << 4);
    uvec2 up = nibbles_to_bytes(codes0.y) | (nibbles_to_bytes(codes0.w) << 4);
    uvec4 bytes = uvec4(low, up);
    if (kv_high_bits(format) != 0u) {
      body[0] = high;
      for (int i = 0; i < 4; ++i) body[i + 1] = bytes[i];
    } else {
      for (int i = 0; i < 4; ++i) body[i] = bytes[i];
    }
  }
}

#define CANONICAL_INPUT(name, words)                                                                                  \
  uint name##_half(uint at) { return (words[at >> 2] >> ((at & 2u) * 8u)) & 0xFFFFu; }                                \
  uint name##_word(uint at) {                                                                                         \
    uint word = words[at >> 2];                                                                                       \
    if ((at & 2u) != 0u) word = (word >> 16) | (words[(at >> 2) + 1u] << 16);                                         \
    return word;                                                                                                      \
  }                                                                                                                   \
  void name##_load_block(uint format, uint at, out uint body[8], out uint scale) {                                    \
    scale = kv_scale_bytes(format) == 2u ? name##_half(at) : name##_word(at);                                         \
    uint count = canonical_words(format);                                                                             \
    uint first = (at + kv_scale_bytes(format)) >> 2;                                                                  \
    bool split = ((at + kv_scale_bytes(format)) & 2u) != 0u;                                                          \
    uint word = words[first];                                                                                         \
    for (uint i = 0u; i < 8u; ++i) {                                                                                  \
      body[i] = word;                                                                                                 \
      if (i + 1u < count || (i + 1u == count && split)) {                                                             \
        word = words[first + i + 1u];                                                                                 \
        if (split) body[i] = (body[i] >> 16) | (word << 16);                                                          \
      }                                                                                                               \
    }                                                                                                                 \
  }

#define CANONICAL_OUTPUT(name, words)                                                                                 \
  void name##_store_half(uint at, uint value) {                                                                       \
    uint shift = (at & 2u) * 8u;                                                                                      \
    atomicAnd(words[at >> 2], ~(0xFFFFu << shift));                                                                   \
    atomicOr(words[at >> 2], (value & 0xFFFFu) << shift);                                                             \
  }                                                                                                                   \
  void name##_store_word(uint at, uint value) {                                                                       \
    if ((at & 2u) == 0u) {                                                                                            \
      words[at >> 2] = value;                                                                                         \
    } else {                                                                                                          \
      name##_store_half(at, value);                                                                                   \
      name##_store_half(at + 2u, value >> 16);                                                                        \
    }                                                                                                                 \
  }                                                                                                                   \
  void name##_store_block(uint format, uint at, uint body[8], uint scale) {                                           \
    uint count = canonical_words(format);                                                                             \
    uint first = (at + kv_scale_bytes(format)) >> 2;                                                                  \
    bool split = ((at + kv_scale_bytes(format)) & 2u) != 0u; /* the body begins in the middle of a word */            \
    uint before = scale;                                     /* and this half precedes it there */                    \
    if (kv_scale_bytes(format) == 4u) {                                                                               \
      if (split) {                                                                                                    \
        name##_store_half(at, scale);                                                                                 \
      } else {                                                                                                        \
        words[at >> 2] = scale;                                                                                       \
      }                                                                                                               \
      before = scale >> 16;                                                                                           \
    } else if (!split) {                                                                                              \
      name##_store_half(at, scale);                                                                                   \
    }                                                                                                                 \
    for (uint i = 0u; i < 8u; ++i) {                                                                                  \
      if (i < count) {                                                                                                \
        words[first + i] = split ? (before & 0xFFFFu) | (body[i] << 16) : body[i];                                    \
        before = body[i] >> 16;                                                                                       \
      }                                                                                                               \
    }                                                                                                                 \
    if (split) name##_store_half((first + count) * 4u, before);                                                       \
  }

#endif
