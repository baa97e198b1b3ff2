// Format nf4_dq: nf4 whose scale is a UE5M3 byte (bits 14..7 of an f16) per 64 elements: the neighbour of the absolute
// maximum below it or the one above, whichever errs less. docs/formats/nf4_dq.md
#ifndef KVANT_FORMAT_NF4_DQ_GLSL
#define KVANT_FORMAT_NF4_DQ_GLSL
#include "nf4.glsl"

KV_LEVELS16_UE5M3(nf4, NF4_ZERO_WORD, 16)

void nf4_dq_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  nf4_decode(codes[0], ue5m3_to_f32(scale), x);
}

void nf4_dq_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  high = uvec2(0u);
  nf4_encode_ue5m3(x, codes, scale);
}

#endif
