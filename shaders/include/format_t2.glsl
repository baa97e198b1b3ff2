// Format t2: t4 with 2-bit codes and 8 levels. docs/formats/t2.md
#ifndef KVANT_FORMAT_T2_GLSL
#define KVANT_FORMAT_T2_GLSL
#include "trellis.glsl"

void t2_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) { trellis_decode_span(FORMAT_t2, codes, high, scale, x); }

void t2_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) { trellis_encode_block(FORMAT_t2, x, codes, high, scale); }

void t2_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  trellis_int8_span(FORMAT_t2, codes, high, scale, q, scale_f, min_f);
}

#endif
