// Format q8_0: x = d * q, q a signed byte, f16 d = amax / 127 per 32 elements, as ggml's reference quantizer.
// docs/formats/q8_0.md
#ifndef KVANT_FORMAT_Q8_0_GLSL
#define KVANT_FORMAT_Q8_0_GLSL
#include "numeric.glsl"
#include "packing.glsl"

vec4 q8_0_unpack4(uint word, vec2 d) {
  uint unsigned4 = word ^ 0x80808080u;
  uvec4 bytes = uvec4(uvec2(unsigned4), uvec2(unsigned4 >> 16)) & uvec4(0xFFu, 0xFF00u, 0xFFu, 0xFF00u);
  return (uintBitsToFloat(bytes | KV_MAGIC) - vec4(8388736.0, 8421376.0, 8388736.0, 8421376.0)) * d.xyxy;
}

void q8_0_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  float d = f16_to_f32(scale);
  vec2 units = vec2(d, d * (1.0 / 256.0));  // the odd bytes come out times 256
  x[0] = q8_0_unpack4(codes[0].x, units);
  x[1] = q8_0_unpack4(codes[0].y, units);
  x[2] = q8_0_unpack4(codes[0].z, units);
  x[3] = q8_0_unpack4(codes[0].w, units);
  x[4] = q8_0_unpack4(codes[1].x, units);
  x[5] = q8_0_unpack4(codes[1].y, units);
  x[6] = q8_0_unpack4(codes[1].z, units);
  x[7] = q8_0_unpack4(codes[1].w, units);
}

// Rounds half away from zero; GLSL's round leaves halves to the driver. Above 127 only q8h's quotients can lie.
uint q8_0_pack4(vec4 x, float inverse) {
  precise vec4 y = x * inverse;
  vec4 magnitude = abs(y);
  ivec4 whole = ivec4(magnitude);
  precise vec4 rest = magnitude - vec4(whole);
  whole = min(whole + ivec4(greaterThanEqual(rest, vec4(0.5))), 127);
  return pack4(uvec4(mix(whole, -whole, lessThan(y, vec4(0.0)))) & 0xFFu, 8u);
}

void q8_0_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  uint amax = 0u;
  for (int i = 0; i < 8; ++i) amax = max(amax, magnitude_bits(x[i]));
  high = uvec2(0u);
  codes[0] = uvec4(0u);
  codes[1] = uvec4(0u);
  scale = amax >= KV_HUGE_BITS ? 0x7E00u : 0u;
  if (amax >= KV_TINY_BITS && amax < KV_HUGE_BITS) {
    float d = divide_exact(uintBitsToFloat(amax), 127u);
    float inverse = reciprocal_exact(d);
    scale = f32_to_f16_saturated(d);
    for (int i = 0; i < 8; ++i) codes[i / 4][i % 4] = q8_0_pack4(x[i], inverse);
  }
}

void q8_0_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  for (int i = 0; i < 8; ++i) q[i] = codes[i / 4][i % 4];
  scale_f = f16_to_f32(scale);
  min_f = 0.0;
}

#endif
