// Format t4: x = level[index] * d * 9/1024, 4-bit codes of a tail-biting trellis with 8 states over 32 elements, 32 levels, UE5M3 byte d. docs/formats/t4.md
#ifndef KVANT_FORMAT_T4_GLSL
#define KVANT_FORMAT_T4_GLSL
#include "trellis.glsl"

void t4_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) { trellis_decode_span(FORMAT_t4, codes, high, scale, x); }

void t4_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) { trellis_encode_block(FORMAT_t4, x, codes, high, scale); }

void t4_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  trellis_int8_span(FORMAT_t4, codes, high, scale, q, scale_f, min_f);
}

#endif
