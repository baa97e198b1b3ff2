// Format f16: IEEE binary16, two elements a word. Encoding rounds to nearest even in integers; decoding uses the
// driver's unpack, which is exact but for denormals, that a driver may flush. docs/formats/f16.md
#ifndef KVANT_FORMAT_F16_GLSL
#define KVANT_FORMAT_F16_GLSL
#include "numeric.glsl"

void f16_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = vec4(unpackHalf2x16(codes[i].x), unpackHalf2x16(codes[i].y));
    x[2 * i + 1] = vec4(unpackHalf2x16(codes[i].z), unpackHalf2x16(codes[i].w));
  }
}

void f16_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  for (int i = 0; i < 4; ++i) {
    codes[i] = uvec4(pack_halves(f32_to_f16(x[2 * i])), pack_halves(f32_to_f16(x[2 * i + 1])));
  }
  high = uvec2(0u);
  scale = 0u;
}

#endif
