// What formats t5, t4, t4x, t3 and t2 share: trellis-coded blocks of 32 elements (Marcellin and Fischer, 1990; Ungerboeck's codes, 1982), tail-biting. A code is
// (upper << 1) | u; the level's index is 4 * upper + 2 * z1 + z0 with z1 = u[t] ^ u[t-1] ^ u[t-3] and z0 = u[t-2], elements counted round the block,
// so that the bits u walk through 8 states and each step leaves every fourth level. The number of levels and their bits follow from formats.def.
// docs/formats/t4.md
#ifndef KVANT_TRELLIS_GLSL
#define KVANT_TRELLIS_GLSL
#include "packing.glsl"
#include "trellis_encode.glsl"
#include "trellis_levels.glsl"
#include "ue5m3.glsl"

vec4 trellis_floats(uint bytes) { return vec4((uvec4(bytes) >> uvec4(0u, 8u, 16u, 24u)) & 255u); }

// Indices of eight elements in a word of nibbles, as bytes: of even elements in x, of odd ones in y. `before`: the word before, the last one before
// the first; `upper`: the elements' bits of the high plane.
uvec2 trellis_nibbles(uint word, uint before, uint upper) {
  uint s1 = (word << 4) | (before >> 28);
  uint s2 = (word << 8) | (before >> 24);
  uint s3 = (word << 12) | (before >> 20);
  uint z0 = s2 & 0x11111111u;
  uint upper_z1 = (word & 0xEEEEEEEEu) | ((word ^ s1 ^ s3) & 0x11111111u);
  uvec2 index = uvec2(((upper_z1 & 0x0F0F0F0Fu) << 1) | (z0 & 0x0F0F0F0Fu), ((upper_z1 >> 3) & 0x1E1E1E1Eu) | ((z0 >> 4) & 0x0F0F0F0Fu));
  uvec2 bits = uvec2(upper, upper >> 1);
  return index | ((bits & 1u) << 5) | ((bits & 4u) << 11) | ((bits & 16u) << 17) | ((bits & 64u) << 23);
}

// Of sixteen elements in a word of pairs: elements j, j + 4, j + 8 and j + 12 in the bytes of component j.
uvec4 trellis_pairs(uint word, uint before, uint upper) {
  uint s1 = (word << 2) | (before >> 30);
  uint s2 = (word << 4) | (before >> 28);
  uint s3 = (word << 6) | (before >> 26);
  uint z = (s2 & 0x55555555u) | (((word ^ s1 ^ s3) & 0x55555555u) << 1);
  uint third = (word >> 1) & 0x55555555u;
  uint fourth = nibbles_to_bytes(upper).x;
  const uvec4 by = uvec4(0u, 2u, 4u, 6u);
  uvec4 index = ((uvec4(z) >> by) & 0x03030303u) | (((uvec4(third) >> by) & 0x01010101u) << 2);
  return index | (((uvec4(fourth) >> uvec4(0u, 1u, 2u, 3u)) & 0x01010101u) << 3);
}

void trellis_levels_span(uint format, uvec4 codes, uint high, float unit, out vec4 x[8]) {
  if (kv_code_bits(format) == 4u) {
    uvec4 before = codes.wxyz;
    for (int i = 0; i < 4; ++i) {
      uvec2 index = trellis_nibbles(codes[i], before[i], (high >> (8 * i)) & 255u);
      vec4 even = trellis_levels4(format, trellis_floats(index.x)) * unit;
      vec4 odd = trellis_levels4(format, trellis_floats(index.y)) * unit;
      x[2 * i] = vec4(even.x, odd.x, even.y, odd.y);
      x[2 * i + 1] = vec4(even.z, odd.z, even.w, odd.w);
    }
  } else {
    for (int i = 0; i < 2; ++i) {
      uvec4 index = trellis_pairs(codes[i], codes[1 - i], (high >> (16 * i)) & 0xFFFFu);
      mat4 levels;
      for (int j = 0; j < 4; ++j) levels[j] = trellis_levels4(format, trellis_floats(index[j])) * unit;
      for (int b = 0; b < 4; ++b) x[4 * i + b] = vec4(levels[0][b], levels[1][b], levels[2][b], levels[3][b]);
    }
  }
}

void trellis_decode_span(uint format, uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {
  trellis_levels_span(format, codes[0], high, ue5m3_to_f32(scale) * KVANT_TRELLIS_UNIT, x);
}

void trellis_int8_span(uint format, uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, out float min_f) {
  vec4 x[8];
  trellis_levels_span(format, codes[0], high, 1.0, x);
  for (int i = 0; i < 8; ++i) q[i] = pack4(uvec4(ivec4(x[i])) & 255u, 8u);
  scale_f = ue5m3_to_f32(scale) * KVANT_TRELLIS_UNIT;
  min_f = 0.0;
}

#endif
