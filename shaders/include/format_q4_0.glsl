// Format q4_0: x = d * (q - 8), q a nibble, f16 d = (first value of largest magnitude) / -8 per 32 elements, as ggml's
// reference quantizer. docs/formats/q4_0.md
#ifndef KVANT_FORMAT_Q4_0_GLSL
#define KVANT_FORMAT_Q4_0_GLSL
#include "numeric.glsl"
#include "packing.glsl"

void q4_0_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  vec4 d = f16_to_f32(scale) * KV_NIBBLE_UNITS;
  x[0] = nibbles_scaled(codes[0].x, 8.0) * d;
  x[1] = nibbles_scaled(codes[0].x >> 16, 8.0) * d;
  x[2] = nibbles_scaled(codes[0].y, 8.0) * d;
  x[3] = nibbles_scaled(codes[0].y >> 16, 8.0) * d;
  x[4] = nibbles_scaled(codes[0].z, 8.0) * d;
  x[5] = nibbles_scaled(codes[0].z >> 16, 8.0) * d;
  x[6] = nibbles_scaled(codes[0].w, 8.0) * d;
  x[7] = nibbles_scaled(codes[0].w >> 16, 8.0) * d;
}

uint q4_0_pack4(vec4 x, float inverse) {
  precise vec4 y = x * inverse;
  precise vec4 shifted = y + 8.5;
  return pack4(min(uvec4(ivec4(shifted)), uvec4(15u)), 4u);
}

void q4_0_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  uint amax = 0u;
  uint signed_max = 0u;
  for (int i = 0; i < 8; ++i) signed_largest(x[i], amax, signed_max);
  high = uvec2(0u);
  codes[0] = uvec4(0x88888888u);
  scale = amax >= KV_HUGE_BITS ? 0x7E00u : 0x8000u;  // 0 / -8 is -0, as in the reference
  if (amax >= KV_TINY_BITS && amax < KV_HUGE_BITS) {
    float d = uintBitsToFloat(signed_max) * -0.125;
    float inverse = reciprocal_exact(d);
    scale = f32_to_f16_saturated(d);
    for (int i = 0; i < 4; ++i) codes[0][i] = q4_0_pack4(x[2 * i], inverse) | (q4_0_pack4(x[2 * i + 1], inverse) << 16);
  }
}

void q4_0_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  for (int i = 0; i < 4; ++i) {
    uvec2 bytes = nibbles_to_bytes(codes[0][i]);
    q[2 * i] = bytes_minus(bytes.x, 0x78787878u);
    q[2 * i + 1] = bytes_minus(bytes.y, 0x78787878u);
  }
  scale_f = f16_to_f32(scale);
  min_f = 0.0;
}

#endif
