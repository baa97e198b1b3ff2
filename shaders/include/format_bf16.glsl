// Format bf16: the upper half of an f32, rounded to nearest even, two elements a word. docs/formats/bf16.md
#ifndef KVANT_FORMAT_BF16_GLSL
#define KVANT_FORMAT_BF16_GLSL
#include "numeric.glsl"

vec4 bf16_unpack4(uint low, uint high) {
  return uintBitsToFloat(uvec4(low << 16, low & 0xFFFF0000u, high << 16, high & 0xFFFF0000u));
}

void bf16_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = bf16_unpack4(codes[i].x, codes[i].y);
    x[2 * i + 1] = bf16_unpack4(codes[i].z, codes[i].w);
  }
}

void bf16_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  for (int i = 0; i < 4; ++i) {
    codes[i] = uvec4(pack_halves(f32_to_bf16(x[2 * i])), pack_halves(f32_to_bf16(x[2 * i + 1])));
  }
  high = uvec2(0u);
  scale = 0u;
}

#endif
