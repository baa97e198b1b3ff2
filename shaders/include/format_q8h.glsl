// Format q8h: x = d * q, q a signed byte, f16 d = amax / 127 per 64 elements; q is the nearest to x / d with the d that is stored. docs/formats/q8h.md
#ifndef KVANT_FORMAT_Q8H_GLSL
#define KVANT_FORMAT_Q8H_GLSL
#include "format_q8_0.glsl"

void q8h_decode_span(uvec4 codes[8], uint high, uint scale, out vec4 x[8]) { q8_0_decode_span(codes, high, scale, x); }

void q8h_encode_block(vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  uint amax = 0u;
  for (int i = 0; i < 16; ++i) amax = max(amax, magnitude_bits(x[i]));
  high = uvec2(0u);
  for (int i = 0; i < 4; ++i) codes[i] = uvec4(0u);
  scale = amax >= KV_HUGE_BITS ? 0x7E00u : 0u;
  if (amax >= KV_TINY_BITS && amax < KV_HUGE_BITS) {
    scale = f32_to_f16_saturated(divide_exact(uintBitsToFloat(amax), 127u));
    if (scale != 0u) {
      float d = f16_to_f32(scale);
      float inverse = reciprocal_exact(d);
      vec4 most = vec4(d * 128.0);
      for (int i = 0; i < 16; ++i) codes[i / 4][i % 4] = q8_0_pack4(clamp(x[i], -most, most), inverse);
    }
  }
}

void q8h_int8_span(uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  q8_0_int8_span(codes, high, scale, q, scale_f, min_f);
}

#endif
