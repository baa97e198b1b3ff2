// Format nl4: x = level[code] * d, 16 levels for blocks of normal values, UE5M3 byte d per 32 elements: the neighbour of the absolute maximum
// below it or the one above, whichever errs less. docs/formats/nl4.md
#ifndef KVANT_FORMAT_NL4_GLSL
#define KVANT_FORMAT_NL4_GLSL
#include "levels16_search.glsl"
#include "packing.glsl"
#include "params/nl4.h"

const float NL4_LEVELS[16] = float[16](KVANT_NL4_LEVELS);
const float NL4_MIDPOINTS[15] = float[15](KVANT_NL4_MIDPOINTS);
const uint NL4_ZERO_WORD = KVANT_NL4_ZERO * 0x11111111u;

KV_LEVELS16_SEARCH(nl4, NL4_LEVELS, NL4_MIDPOINTS, NL4_ZERO_WORD, 8)
KV_LEVELS16_UE5M3(nl4, NL4_ZERO_WORD, 8)

// 128 times the levels of the four codes in the low 16 bits, by arithmetic. Codes by way of bytes: masks in place (nibbles_scaled) would need more
// constants than older GPUs have scalar registers for, next to the polynomial's.
vec4 nl4_levels4(uint word) {
  const uvec2 pairs = uvec2(word, word >> 4) & 0x0F0Fu;
  const vec4 m = vec4(ivec4(uvec4(pairs, pairs >> 8) & 255u)) - 7.5;
  vec4 square = m * m;
  vec4 level = m * (KVANT_NL4_POLYNOMIAL_A + square * (KVANT_NL4_POLYNOMIAL_B + square * KVANT_NL4_POLYNOMIAL_C));
  return floor(level + 0.5);
}

void nl4_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  float unit = ue5m3_to_f32(scale) * (1.0 / 128.0);
  x[0] = nl4_levels4(codes[0].x) * unit;
  x[1] = nl4_levels4(codes[0].x >> 16) * unit;
  x[2] = nl4_levels4(codes[0].y) * unit;
  x[3] = nl4_levels4(codes[0].y >> 16) * unit;
  x[4] = nl4_levels4(codes[0].z) * unit;
  x[5] = nl4_levels4(codes[0].z >> 16) * unit;
  x[6] = nl4_levels4(codes[0].w) * unit;
  x[7] = nl4_levels4(codes[0].w >> 16) * unit;
}

void nl4_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  high = uvec2(0u);
  nl4_encode_ue5m3(x, codes, scale);
}

void nl4_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  for (int i = 0; i < 8; ++i) {
    uvec4 bytes = uvec4(ivec4(nl4_levels4(codes[0][i / 2] >> (16 * (i & 1))))) & 255u;
    q[i] = pack4(bytes, 8u);
  }
  scale_f = ue5m3_to_f32(scale) * (1.0 / 128.0);
  min_f = 0.0;
}

#endif
