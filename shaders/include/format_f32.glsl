// Format f32: the bits themselves. docs/formats/f32.md
#ifndef KVANT_FORMAT_F32_GLSL
#define KVANT_FORMAT_F32_GLSL

void f32_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  for (int i = 0; i < 8; ++i) x[i] = uintBitsToFloat(codes[i]);
}

void f32_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  for (int i = 0; i < 8; ++i) codes[i] = floatBitsToUint(x[i]);
  high = uvec2(0u);
  scale = 0u;
}

#endif
