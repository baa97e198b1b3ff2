// Formats whose nibbles name one of 16 levels. KV_LEVELS16(name, LEVELS), with LEVELS a constant array of 16 floats, defines
//   vec4 name_levels4(word): the levels of the four codes in the low 16 bits
//   void name_decode(codes, scale, out x[8]): a span's levels times its scale
#ifndef KVANT_LEVELS16_GLSL
#define KVANT_LEVELS16_GLSL

// By the bits of a code: a tree of selections, as indexed constants go through memory on many drivers. One code after the
// other: all at once would need four times the registers and lane masks for what is between a code and its level.
#define KV_LEVELS16(name, L)                                                                          \
  float name##_level(uint bit0, uint bit1, uint bit2, uint bit3) {                                    \
    const bool b0 = bit0 != 0u;                                                                       \
    const bool b1 = bit1 != 0u;                                                                       \
    const float l0 = b0 ? L[1] : L[0];                                                                \
    const float l2 = b0 ? L[3] : L[2];                                                                \
    const float l4 = b0 ? L[5] : L[4];                                                                \
    const float l6 = b0 ? L[7] : L[6];                                                                \
    const float l8 = b0 ? L[9] : L[8];                                                                \
    const float l10 = b0 ? L[11] : L[10];                                                             \
    const float l12 = b0 ? L[13] : L[12];                                                             \
    const float l14 = b0 ? L[15] : L[14];                                                             \
    const float q0 = b1 ? l2 : l0;                                                                    \
    const float q4 = b1 ? l6 : l4;                                                                    \
    const float q8 = b1 ? l10 : l8;                                                                   \
    const float q12 = b1 ? l14 : l12;                                                                 \
    const bool b2 = bit2 != 0u;                                                                       \
    const float low = b2 ? q4 : q0;                                                                   \
    const float high = b2 ? q12 : q8;                                                                 \
    return bit3 != 0u ? high : low;                                                                   \
  }                                                                                                   \
  vec4 name##_levels4(uint word) {                                                                    \
    return vec4(name##_level(word & 0x1u, word & 0x2u, word & 0x4u, word & 0x8u),                     \
                name##_level(word & 0x10u, word & 0x20u, word & 0x40u, word & 0x80u),                 \
                name##_level(word & 0x100u, word & 0x200u, word & 0x400u, word & 0x800u),             \
                name##_level(word & 0x1000u, word & 0x2000u, word & 0x4000u, word & 0x8000u));        \
  }                                                                                                   \
  void name##_decode(uvec4 codes, float scale, out vec4 x[8]) {                                       \
    x[0] = name##_levels4(codes.x) * scale;                                                           \
    x[1] = name##_levels4(codes.x >> 16) * scale;                                                     \
    x[2] = name##_levels4(codes.y) * scale;                                                           \
    x[3] = name##_levels4(codes.y >> 16) * scale;                                                     \
    x[4] = name##_levels4(codes.z) * scale;                                                           \
    x[5] = name##_levels4(codes.z >> 16) * scale;                                                     \
    x[6] = name##_levels4(codes.w) * scale;                                                           \
    x[7] = name##_levels4(codes.w >> 16) * scale;                                                     \
  }

#endif
