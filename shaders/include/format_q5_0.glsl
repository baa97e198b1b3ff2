// Format q5_0: x = d * (q - 16), q five bits, f16 d = (first value of largest magnitude) / -16 per 32 elements, as
// ggml's reference quantizer. Low nibbles in the code plane, fifth bits in the high word. docs/formats/q5_0.md
#ifndef KVANT_FORMAT_Q5_0_GLSL
#define KVANT_FORMAT_Q5_0_GLSL
#include "numeric.glsl"
#include "packing.glsl"

void q5_0_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  float d = f16_to_f32(scale);
  x[0] = fives(codes[0].x, high, 16.0) * d;
  x[1] = fives(codes[0].x >> 16, high >> 4, 16.0) * d;
  x[2] = fives(codes[0].y, high >> 8, 16.0) * d;
  x[3] = fives(codes[0].y >> 16, high >> 12, 16.0) * d;
  x[4] = fives(codes[0].z, high >> 16, 16.0) * d;
  x[5] = fives(codes[0].z >> 16, high >> 20, 16.0) * d;
  x[6] = fives(codes[0].w, high >> 24, 16.0) * d;
  x[7] = fives(codes[0].w >> 16, high >> 28, 16.0) * d;
}

// Four codes: nibbles in bits 0..15, fifth bits in bits 16..19.
uint q5_0_pack4(vec4 x, float inverse) {
  precise vec4 y = x * inverse;
  precise vec4 shifted = y + 16.5;
  uvec4 q = min(uvec4(ivec4(shifted)), uvec4(31u));
  return pack4(q & 15u, 4u) | (pack4(q >> 4, 1u) << 16);
}

void q5_0_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  uint amax = 0u;
  uint signed_max = 0u;
  for (int i = 0; i < 8; ++i) signed_largest(x[i], amax, signed_max);
  codes[0] = uvec4(0u);
  high = uvec2(0xFFFFFFFFu, 0u);  // code 16
  scale = amax >= KV_HUGE_BITS ? 0x7E00u : 0x8000u;  // 0 / -16 is -0, as in the reference
  if (amax >= KV_TINY_BITS && amax < KV_HUGE_BITS) {
    float d = uintBitsToFloat(signed_max) * -0.0625;
    float inverse = reciprocal_exact(d);
    scale = f32_to_f16_saturated(d);
    high.x = 0u;
    for (int i = 0; i < 4; ++i) {
      uint low4 = q5_0_pack4(x[2 * i], inverse);
      uint high4 = q5_0_pack4(x[2 * i + 1], inverse);
      codes[0][i] = (low4 & 0xFFFFu) | (high4 << 16);
      high.x |= ((low4 >> 16) | ((high4 >> 16) << 4)) << (8 * i);
    }
  }
}

void q5_0_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  for (int i = 0; i < 4; ++i) {
    uvec2 bytes = nibbles_to_bytes(codes[0][i]);
    q[2 * i] = bytes_minus(bytes.x | fifth_bits_to_bytes(high >> (8 * i)), 0x70707070u);
    q[2 * i + 1] = bytes_minus(bytes.y | fifth_bits_to_bytes(high >> (8 * i + 4)), 0x70707070u);
  }
  scale_f = f16_to_f32(scale);
  min_f = 0.0;
}

#endif
