// Format iq4_nl: x = d * level[q], 16 uneven levels, f16 d = the least-squares fit over weights x^2 for the codes of
// (first value of largest magnitude) / -127, per 32 elements, as ggml's reference quantizer. docs/formats/iq4_nl.md
#ifndef KVANT_FORMAT_IQ4_NL_GLSL
#define KVANT_FORMAT_IQ4_NL_GLSL
#include "levels16.glsl"
#include "numeric.glsl"
#include "packing.glsl"
#include "params/iq4_nl.h"

const float IQ4_NL_LEVELS[16] = float[16](KVANT_IQ4_NL_LEVELS);
const float IQ4_NL_MIDPOINTS[15] = float[15](KVANT_IQ4_NL_MIDPOINTS);

KV_LEVELS16(iq4_nl, IQ4_NL_LEVELS)

void iq4_nl_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  iq4_nl_decode(codes[0], f16_to_f32(scale), x);
}

// Codes of four elements, and their part of the sums that the scale is fitted to. One element after the other, as in the
// reference: the order of a sum is part of the format.
uvec4 iq4_nl_codes4(vec4 x, float inverse, inout float sum_qx, inout float sum_qq) {
  precise vec4 y = x * inverse;
  uvec4 code = uvec4(0u);
  vec4 level = vec4(IQ4_NL_LEVELS[0]);
  for (int k = 0; k < 15; ++k) {
    bvec4 above = greaterThanEqual(y, vec4(IQ4_NL_MIDPOINTS[k]));
    code = mix(code, uvec4(uint(k) + 1u), above);
    level = mix(level, vec4(IQ4_NL_LEVELS[k + 1]), above);
  }
  precise vec4 weight = x * x;
  precise vec4 weighted = weight * level;
  precise vec4 qx = weighted * x;
  precise vec4 qq = weighted * level;
  for (int i = 0; i < 4; ++i) {
    precise float next_qx = sum_qx + qx[i];
    precise float next_qq = sum_qq + qq[i];
    sum_qx = next_qx;
    sum_qq = next_qq;
  }
  return code;
}

void iq4_nl_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  uint amax = 0u;
  uint signed_max = 0u;
  for (int i = 0; i < 8; ++i) signed_largest(x[i], amax, signed_max);
  high = uvec2(0u);
  codes[0] = uvec4(KVANT_IQ4_NL_ZERO * 0x11111111u);
  scale = amax >= KV_HUGE_BITS ? 0x7E00u : 0u;
  if (amax >= KV_TINY_BITS && amax < KV_HUGE_BITS) {
    // By a power of two the largest magnitude comes into [1, 2), where cubes neither overflow nor vanish.
    uint exponent = amax >> 23;
    float unit = uintBitsToFloat((254u - exponent) << 23);
    float largest = uintBitsToFloat((amax & 0x007FFFFFu) | 0x3F800000u);
    uint sign = ~signed_max & 0x80000000u;
    float inverse = reciprocal_exact(uintBitsToFloat(floatBitsToUint(divide_exact(largest, 127u)) | sign));
    float sum_qx = 0.0;
    float sum_qq = 0.0;
    for (int i = 0; i < 8; ++i) {
      precise vec4 y = x[i] * unit;
      uint word = pack4(iq4_nl_codes4(y, inverse, sum_qx, sum_qq), 4u);
      codes[0][i / 2] = (i & 1) == 0 ? word : codes[0][i / 2] | (word << 16);
    }
    uint d = floatBitsToUint(quotient_exact(abs(sum_qx), sum_qq)) + ((exponent - 127u) << 23);
    scale = f32_to_f16_saturated(uintBitsToFloat(d | (floatBitsToUint(sum_qx) & 0x80000000u)));
  }
}

void iq4_nl_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  for (int i = 0; i < 8; ++i) {
    uvec4 bytes = uvec4(ivec4(iq4_nl_levels4(codes[0][i / 2] >> (16 * (i & 1))))) & 255u;
    q[i] = pack4(bytes, 8u);
  }
  scale_f = f16_to_f32(scale);
  min_f = 0.0;
}

#endif
