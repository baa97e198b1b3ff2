// Format nf4: x = level[code] * d, 16 normal-float levels, f16 d per 64 elements: the absolute maximum or 29/32 of it,
// whichever errs less. docs/formats/nf4.md
#ifndef KVANT_FORMAT_NF4_GLSL
#define KVANT_FORMAT_NF4_GLSL
#include "nf4.glsl"

void nf4_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  nf4_decode(codes[0], f16_to_f32(scale), x);
}

void nf4_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  high = uvec2(0u);
  uint amax = nf4_block_max(x);
  precise float smaller = uintBitsToFloat(amax) * 0.90625;
  uvec2 bits = uvec2(f32_to_f16_saturated(uintBitsToFloat(amax)), f32_to_f16_saturated(smaller));
  vec2 scales = vec2(f16_to_f32(bits.x), f16_to_f32(bits.y));
  uint best = nf4_encode(x, scales, amax < KV_SEARCH_LIMIT_BITS ? 2u : 1u, codes);
  scale = best == 0u ? bits.x : bits.y;
  if (amax >= KV_HUGE_BITS) {
    codes[0] = uvec4(NF4_ZERO_WORD);
    codes[1] = uvec4(NF4_ZERO_WORD);
    scale = 0x7E00u;
  }
}

#endif
