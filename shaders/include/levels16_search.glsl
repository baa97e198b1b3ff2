// Encoding in formats whose nibbles name one of 16 levels: codes for a scale, and the better of two scales.
// KV_LEVELS16_SEARCH(name, LEVELS, MIDPOINTS, ZERO_WORD, QUADS), with LEVELS and MIDPOINTS constant arrays of 16 and 15 floats, ZERO_WORD eight
// codes of zero, and QUADS a quarter of the block's elements (8 or 16), defines
//   uint name_block_max(x): the bits of the largest magnitude
//   float name_quantize(x, scale, out words): eight codes a word, and the squared error, summed in a fixed order
//   uint name_encode(x, scales, count, out codes): codes for scales.x, or for scales.y if that errs less (count 1 leaves it out). Returns which.
#ifndef KVANT_LEVELS16_SEARCH_GLSL
#define KVANT_LEVELS16_SEARCH_GLSL
#include "numeric.glsl"
#include "packing.glsl"
#include "ue5m3.glsl"

// From 2^17 on squares could overflow, and both scales saturate anyway.
const uint KV_SEARCH_LIMIT_BITS = 0x48000000u;

#define KV_LEVELS16_SEARCH(name, LEVELS, MIDPOINTS, ZERO_WORD, QUADS)                                                         \
  uint name##_block_max(vec4 x[16]) {                                                                                         \
    uint amax = 0u;                                                                                                           \
    for (int i = 0; i < QUADS; ++i) amax = max(amax, magnitude_bits(x[i]));                                                   \
    return amax;                                                                                                              \
  }                                                                                                                           \
  float name##_quantize(vec4 x[16], float scale, out uint words[QUADS / 2]) {                                                 \
    float midpoints[15];                                                                                                      \
    float values[16];                                                                                                         \
    for (int k = 0; k < 15; ++k) {                                                                                            \
      precise float midpoint = MIDPOINTS[k] * scale;                                                                          \
      midpoints[k] = midpoint;                                                                                                \
    }                                                                                                                         \
    for (int k = 0; k < 16; ++k) {                                                                                            \
      precise float value = LEVELS[k] * scale;                                                                                \
      values[k] = value;                                                                                                      \
    }                                                                                                                         \
    precise vec4 sum = vec4(0.0);                                                                                             \
    uint halves[QUADS];                                                                                                       \
    for (int i = 0; i < QUADS; ++i) {                                                                                         \
      uvec4 code = uvec4(0u);                                                                                                 \
      vec4 value = vec4(values[0]);                                                                                           \
      for (int k = 0; k < 15; ++k) {                                                                                          \
        bvec4 above = greaterThan(x[i], vec4(midpoints[k]));                                                                  \
        code = mix(code, uvec4(uint(k) + 1u), above);                                                                         \
        value = mix(value, vec4(values[k + 1]), above);                                                                       \
      }                                                                                                                       \
      precise vec4 error = x[i] - value;                                                                                      \
      precise vec4 squared = error * error;                                                                                   \
      sum += squared;                                                                                                         \
      halves[i] = pack4(code, 4u);                                                                                            \
    }                                                                                                                         \
    for (int i = 0; i < QUADS / 2; ++i) words[i] = scale == 0.0 ? ZERO_WORD : halves[2 * i] | (halves[2 * i + 1] << 16);      \
    precise float left = sum.x + sum.y;                                                                                       \
    precise float right = sum.z + sum.w;                                                                                      \
    precise float total = left + right;                                                                                       \
    return total;                                                                                                             \
  }                                                                                                                           \
  uint name##_encode(vec4 x[16], vec2 scales, uint count, out uvec4 codes[16]) {                                              \
    uint best = 0u;                                                                                                           \
    float best_error = 0.0;                                                                                                   \
    for (uint c = 0u; c < count; ++c) {                                                                                       \
      uint words[QUADS / 2];                                                                                                  \
      float error = name##_quantize(x, c == 0u ? scales.x : scales.y, words);                                                 \
      if (c == 0u || error < best_error) {                                                                                    \
        best = c;                                                                                                             \
        best_error = error;                                                                                                   \
        for (int i = 0; i < QUADS / 8; ++i)                                                                                   \
          codes[i] = uvec4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);                               \
      }                                                                                                                       \
    }                                                                                                                         \
    return best;                                                                                                              \
  }

// KV_LEVELS16_UE5M3(name, ZERO_WORD, QUADS), after KV_LEVELS16_SEARCH, defines
//   void name_encode_ue5m3(x, out codes, out scale): for the better of the two scale bytes around the largest magnitude, a block that is not finite included
#define KV_LEVELS16_UE5M3(name, ZERO_WORD, QUADS)                                                                             \
  void name##_encode_ue5m3(vec4 x[16], out uvec4 codes[16], out uint scale) {                                                 \
    uint amax = name##_block_max(x);                                                                                          \
    uint below = ue5m3_floor(amax);                                                                                           \
    uint above = min(below + 1u, UE5M3_MAX);                                                                                  \
    vec2 scales = vec2(ue5m3_to_f32(below), ue5m3_to_f32(above));                                                             \
    uint best = name##_encode(x, scales, amax < KV_SEARCH_LIMIT_BITS ? 2u : 1u, codes);                                       \
    scale = best == 0u ? below : above;                                                                                       \
    if (amax >= KV_HUGE_BITS) {                                                                                               \
      for (int i = 0; i < QUADS / 8; ++i) codes[i] = uvec4(ZERO_WORD);                                                        \
      scale = UE5M3_NAN;                                                                                                      \
    }                                                                                                                         \
  }

#endif
