// Format nf4_dq: nf4 whose scale is a UE5M3 byte (bits 14..7 of an f16) per 64 elements: the neighbour of the absolute
// maximum below it or the one above, whichever errs less. docs/formats/nf4_dq.md
#ifndef KVANT_FORMAT_NF4_DQ_GLSL
#define KVANT_FORMAT_NF4_DQ_GLSL
#include "nf4.glsl"
#include "ue5m3.glsl"

void nf4_dq_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  nf4_decode(codes[0], ue5m3_to_f32(scale), x);
}

void nf4_dq_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  high = uvec2(0u);
  uint amax = nf4_block_max(x);
  uint below = ue5m3_floor(amax);
  uint above = min(below + 1u, UE5M3_MAX);
  vec2 scales = vec2(ue5m3_to_f32(below), ue5m3_to_f32(above));
  uint best = nf4_encode(x, scales, amax < KV_SEARCH_LIMIT_BITS ? 2u : 1u, codes);
  scale = best == 0u ? below : above;
  if (amax >= KV_HUGE_BITS) {
    codes[0] = uvec4(NF4_ZERO_WORD);
    codes[1] = uvec4(NF4_ZERO_WORD);
    scale = UE5M3_NAN;
  }
}

#endif
