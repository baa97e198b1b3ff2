// Format t5: t4 with 5-bit codes and 64 levels. docs/formats/t5.md
#ifndef KVANT_FORMAT_T5_GLSL
#define KVANT_FORMAT_T5_GLSL
#include "trellis.glsl"

void t5_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) { trellis_decode_span(FORMAT_t5, codes, high, scale, x); }

void t5_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) { trellis_encode_block(FORMAT_t5, x, codes, high, scale); }

void t5_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  trellis_int8_span(FORMAT_t5, codes, high, scale, q, scale_f, min_f);
}

#endif
