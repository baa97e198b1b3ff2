// Format q4_1: x = d * q + m, q a nibble, f16 d = (max - min) / 15 and f16 m = min per 32 elements, as ggml's reference
// quantizer. Scale bits: d in the low half, m in the high half. docs/formats/q4_1.md
#ifndef KVANT_FORMAT_Q4_1_GLSL
#define KVANT_FORMAT_Q4_1_GLSL
#include "numeric.glsl"
#include "packing.glsl"

void q4_1_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  vec4 d = f16_to_f32(scale & 0xFFFFu) * KV_NIBBLE_UNITS;
  float m = f16_to_f32(scale >> 16);
  x[0] = nibbles_scaled(codes[0].x, 0.0) * d + m;
  x[1] = nibbles_scaled(codes[0].x >> 16, 0.0) * d + m;
  x[2] = nibbles_scaled(codes[0].y, 0.0) * d + m;
  x[3] = nibbles_scaled(codes[0].y >> 16, 0.0) * d + m;
  x[4] = nibbles_scaled(codes[0].z, 0.0) * d + m;
  x[5] = nibbles_scaled(codes[0].z >> 16, 0.0) * d + m;
  x[6] = nibbles_scaled(codes[0].w, 0.0) * d + m;
  x[7] = nibbles_scaled(codes[0].w >> 16, 0.0) * d + m;
}

uint q4_1_pack4(vec4 x, float low, float inverse) {
  precise vec4 above = flush_denormals(x) - low;
  precise vec4 y = above * inverse;
  precise vec4 shifted = y + 0.5;
  return pack4(min(uvec4(ivec4(shifted)), uvec4(15u)), 4u);
}

void q4_1_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  uint amax = 0u;
  float low, high_end;
  block_range(x, amax, low, high_end);
  high = uvec2(0u);
  codes[0] = uvec4(0u);
  precise float range = high_end - low;
  bool finite = amax < KV_HUGE_BITS;
  scale = finite ? f32_to_f16_saturated(low) << 16 : 0x7E00u;
  if (finite && floatBitsToUint(range) >= KV_TINY_BITS) {
    float d = divide_exact(range, 15u);
    float inverse = reciprocal_exact(d);
    scale |= f32_to_f16_saturated(d);
    for (int i = 0; i < 4; ++i) {
      codes[0][i] = q4_1_pack4(x[2 * i], low, inverse) | (q4_1_pack4(x[2 * i + 1], low, inverse) << 16);
    }
  }
}

void q4_1_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  for (int i = 0; i < 4; ++i) {
    uvec2 bytes = nibbles_to_bytes(codes[0][i]);
    q[2 * i] = bytes.x;
    q[2 * i + 1] = bytes.y;
  }
  scale_f = f16_to_f32(scale & 0xFFFFu);
  min_f = f16_to_f32(scale >> 16);
}

#endif
