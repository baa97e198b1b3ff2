// Format q5_1: x = d * q + m, q five bits, f16 d = (max - min) / 31 and f16 m = min per 32 elements, as ggml's
// reference quantizer. Scale bits: d in the low half, m in the high half; fifth bits in the high word.
// docs/formats/q5_1.md
#ifndef KVANT_FORMAT_Q5_1_GLSL
#define KVANT_FORMAT_Q5_1_GLSL
#include "numeric.glsl"
#include "packing.glsl"

void q5_1_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  float d = f16_to_f32(scale & 0xFFFFu);
  float m = f16_to_f32(scale >> 16);
  x[0] = fives(codes[0].x, high, 0.0) * d + m;
  x[1] = fives(codes[0].x >> 16, high >> 4, 0.0) * d + m;
  x[2] = fives(codes[0].y, high >> 8, 0.0) * d + m;
  x[3] = fives(codes[0].y >> 16, high >> 12, 0.0) * d + m;
  x[4] = fives(codes[0].z, high >> 16, 0.0) * d + m;
  x[5] = fives(codes[0].z >> 16, high >> 20, 0.0) * d + m;
  x[6] = fives(codes[0].w, high >> 24, 0.0) * d + m;
  x[7] = fives(codes[0].w >> 16, high >> 28, 0.0) * d + m;
}

// Four codes: nibbles in bits 0..15, fifth bits in bits 16..19.
uint q5_1_pack4(vec4 x, float low, float inverse) {
  precise vec4 above = flush_denormals(x) - low;
  precise vec4 y = above * inverse;
  precise vec4 shifted = y + 0.5;
  uvec4 q = uvec4(ivec4(shifted));
  return pack4(q & 15u, 4u) | (pack4(q >> 4, 1u) << 16);
}

void q5_1_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  uint amax = 0u;
  float low, high_end;
  block_range(x, amax, low, high_end);
  high = uvec2(0u);
  codes[0] = uvec4(0u);
  precise float range = high_end - low;
  bool finite = amax < KV_HUGE_BITS;
  scale = finite ? f32_to_f16_saturated(low) << 16 : 0x7E00u;
  if (finite && floatBitsToUint(range) >= KV_TINY_BITS) {
    float d = divide_exact(range, 31u);
    float inverse = reciprocal_exact(d);
    scale |= f32_to_f16_saturated(d);
    for (int i = 0; i < 4; ++i) {
      uint low4 = q5_1_pack4(x[2 * i], low, inverse);
      uint high4 = q5_1_pack4(x[2 * i + 1], low, inverse);
      codes[0][i] = (low4 & 0xFFFFu) | (high4 << 16);
      high.x |= ((low4 >> 16) | ((high4 >> 16) << 4)) << (8 * i);
    }
  }
}

void q5_1_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  for (int i = 0; i < 4; ++i) {
    uvec2 bytes = nibbles_to_bytes(codes[0][i]);
    q[2 * i] = bytes.x | fifth_bits_to_bytes(high >> (8 * i));
    q[2 * i + 1] = bytes.y | fifth_bits_to_bytes(high >> (8 * i + 4));
  }
  scale_f = f16_to_f32(scale & 0xFFFFu);
  min_f = f16_to_f32(scale >> 16);
}

#endif
