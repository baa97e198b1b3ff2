// What formats nf4 and nf4_dq share: the 16 levels, and the search for the better of two scales.
#ifndef KVANT_NF4_GLSL
#define KVANT_NF4_GLSL
#include "levels16.glsl"
#include "numeric.glsl"
#include "packing.glsl"
#include "params/nf4.h"

const float NF4_LEVELS[16] = float[16](KVANT_NF4_LEVELS);
const float NF4_MIDPOINTS[15] = float[15](KVANT_NF4_MIDPOINTS);
const uint NF4_ZERO_WORD = KVANT_NF4_ZERO * 0x11111111u;

KV_LEVELS16(nf4, NF4_LEVELS)

uint nf4_block_max(vec4 x[16]) {
  uint amax = 0u;
  for (int i = 0; i < 16; ++i) amax = max(amax, magnitude_bits(x[i]));
  return amax;
}

// Codes of 64 elements for a given scale and the squared error, summed in a fixed order.
float nf4_quantize(vec4 x[16], float scale, out uint words[8]) {
  float midpoints[15];
  float values[16];
  for (int k = 0; k < 15; ++k) {
    precise float midpoint = NF4_MIDPOINTS[k] * scale;
    midpoints[k] = midpoint;
  }
  for (int k = 0; k < 16; ++k) {
    precise float value = NF4_LEVELS[k] * scale;
    values[k] = value;
  }
  precise vec4 sum = vec4(0.0);
  uint halves[16];
  for (int i = 0; i < 16; ++i) {
    uvec4 code = uvec4(0u);
    vec4 value = vec4(values[0]);
    for (int k = 0; k < 15; ++k) {
      bvec4 above = greaterThan(x[i], vec4(midpoints[k]));
      code = mix(code, uvec4(uint(k) + 1u), above);
      value = mix(value, vec4(values[k + 1]), above);
    }
    precise vec4 error = x[i] - value;
    precise vec4 squared = error * error;
    sum += squared;
    halves[i] = pack4(code, 4u);
  }
  for (int i = 0; i < 8; ++i) words[i] = scale == 0.0 ? NF4_ZERO_WORD : halves[2 * i] | (halves[2 * i + 1] << 16);
  precise float left = sum.x + sum.y;
  precise float right = sum.z + sum.w;
  precise float total = left + right;
  return total;
}

// Encodes with scales[0], or with scales[1] if that gives the smaller error; `count` 1 leaves the second out.
uint nf4_encode(vec4 x[16], vec2 scales, uint count, out uvec4 codes[16]) {
  uint best = 0u;
  float best_error = 0.0;
  for (uint c = 0u; c < count; ++c) {
    uint words[8];
    float error = nf4_quantize(x, c == 0u ? scales.x : scales.y, words);
    if (c == 0u || error < best_error) {
      best = c;
      best_error = error;
      codes[0] = uvec4(words[0], words[1], words[2], words[3]);
      codes[1] = uvec4(words[4], words[5], words[6], words[7]);
    }
  }
  return best;
}

// From 2^17 on the squares could overflow, and both scales saturate anyway.
const uint NF4_SEARCH_LIMIT_BITS = 0x48000000u;

#endif
