// Format t4x: t4 with two trellises under one scale byte. docs/formats/t4x.md
#ifndef KVANT_FORMAT_T4X_GLSL
#define KVANT_FORMAT_T4X_GLSL
#include "trellis.glsl"

void t4x_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) { trellis_decode_span(FORMAT_t4x, codes, high, scale, x); }

void t4x_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) { trellis_encode_block(FORMAT_t4x, x, codes, high, scale); }

void t4x_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  trellis_int8_span(FORMAT_t4x, codes, high, scale, q, scale_f, min_f);
}

#endif
