// What formats nf4 and nf4_dq share: the 16 levels, and the search for the better of two scales.
#ifndef KVANT_NF4_GLSL
#define KVANT_NF4_GLSL
#include "numeric.glsl"
#include "packing.glsl"
#include "params/nf4.h"

const float NF4_LEVELS[16] = float[16](KVANT_NF4_LEVELS);
const float NF4_MIDPOINTS[15] = float[15](KVANT_NF4_MIDPOINTS);
const uint NF4_ZERO_WORD = KVANT_NF4_ZERO * 0x11111111u;

// The level of a code, by its bits: a tree of selections, as indexed constants go through memory on many drivers.
float nf4_level(uint bit0, uint bit1, uint bit2, uint bit3) {
  const bool b0 = bit0 != 0u;
  const bool b1 = bit1 != 0u;
  const float l0 = b0 ? NF4_LEVELS[1] : NF4_LEVELS[0];
  const float l2 = b0 ? NF4_LEVELS[3] : NF4_LEVELS[2];
  const float l4 = b0 ? NF4_LEVELS[5] : NF4_LEVELS[4];
  const float l6 = b0 ? NF4_LEVELS[7] : NF4_LEVELS[6];
  const float l8 = b0 ? NF4_LEVELS[9] : NF4_LEVELS[8];
  const float l10 = b0 ? NF4_LEVELS[11] : NF4_LEVELS[10];
  const float l12 = b0 ? NF4_LEVELS[13] : NF4_LEVELS[12];
  const float l14 = b0 ? NF4_LEVELS[15] : NF4_LEVELS[14];
  const float q0 = b1 ? l2 : l0;
  const float q4 = b1 ? l6 : l4;
  const float q8 = b1 ? l10 : l8;
  const float q12 = b1 ? l14 : l12;
  const bool b2 = bit2 != 0u;
  const float low = b2 ? q4 : q0;
  const float high = b2 ? q12 : q8;
  return bit3 != 0u ? high : low;
}

// Levels of the four codes in the low 16 bits, one after the other: all at once would need four times the registers and
// lane masks for what is between a code and its level.
vec4 nf4_levels4(uint word) {
  return vec4(nf4_level(word & 0x1u, word & 0x2u, word & 0x4u, word & 0x8u),
              nf4_level(word & 0x10u, word & 0x20u, word & 0x40u, word & 0x80u),
              nf4_level(word & 0x100u, word & 0x200u, word & 0x400u, word & 0x800u),
              nf4_level(word & 0x1000u, word & 0x2000u, word & 0x4000u, word & 0x8000u));
}

void nf4_decode(uvec4 codes, float scale, out vec4 x[8]) {
  x[0] = nf4_levels4(codes.x) * scale;
  x[1] = nf4_levels4(codes.x >> 16) * scale;
  x[2] = nf4_levels4(codes.y) * scale;
  x[3] = nf4_levels4(codes.y >> 16) * scale;
  x[4] = nf4_levels4(codes.z) * scale;
  x[5] = nf4_levels4(codes.z >> 16) * scale;
  x[6] = nf4_levels4(codes.w) * scale;
  x[7] = nf4_levels4(codes.w >> 16) * scale;
}

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
