// Format f8_e4m3: OCP 8-bit float (bias 7, largest 448, no infinity), scale 1, four elements a word; encoding saturates
// and rounds to nearest even. docs/formats/f8_e4m3.md
#ifndef KVANT_FORMAT_F8_E4M3_GLSL
#define KVANT_FORMAT_F8_E4M3_GLSL
#include "numeric.glsl"
#include "packing.glsl"

vec4 f8_e4m3_unpack4(uint word) {
  uvec4 bytes = uvec4(word << 24, word << 16, word << 8, word) >> 24;
  uvec4 magnitude = bytes & 0x7Fu;
  vec4 normal = uintBitsToFloat((magnitude << 20) + 0x3C000000u);
  // Exponent 0: the bits read 2^-7 * (1 + m / 8), the value is m * 2^-9.
  vec4 value = mix(normal, normal * 2.0 - 0.015625, lessThan(magnitude, uvec4(8u)));
  uvec4 bits = floatBitsToUint(value);
  bits = mix(bits, uvec4(0x7FC00000u), equal(magnitude, uvec4(0x7Fu)));
  return uintBitsToFloat(bits | ((bytes & 0x80u) << 24));
}

void f8_e4m3_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  for (int i = 0; i < 8; ++i) x[i] = f8_e4m3_unpack4(codes[i / 4][i % 4]);
}

void f8_e4m3_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  for (int i = 0; i < 8; ++i) codes[i / 4][i % 4] = pack4(f32_to_f8_e4m3(x[i]), 8u);
  high = uvec2(0u);
  scale = 0u;
}

#endif
