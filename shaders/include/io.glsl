// Tensors of the engine as 32-bit words: f32, f16 or bf16 elements by the IO_TYPE constant. Conversions are exact integers
// (numeric.glsl), so that input and output do not depend on a driver's rounding or denormal modes.
//
// IO_INPUT(name, words) defines  vec4 name_load4(uint io_type, uint element): elements element .. element + 3; any offset,
//   odd 16-bit offsets included.
// IO_OUTPUT(name, words) defines  void name_store2(uint io_type, uint element, vec2 x)  and  name_store4(..., vec4 x);
//   `element` is even for 16-bit types, since two elements share a word.
#ifndef KVANT_IO_GLSL
#define KVANT_IO_GLSL
#include "numeric.glsl"
#include "params/types.h"

vec4 io_unpack4(uint io_type, uvec2 words) {
  uvec4 halves = unpack_halves(words);
  return io_type == KVANT_IO_BF16 ? bf16_to_f32(halves) : f16_to_f32(halves);
}

uvec2 io_pack4(uint io_type, vec4 x) {
  return pack_halves(io_type == KVANT_IO_BF16 ? f32_to_bf16(x) : f32_to_f16(x));
}

#define IO_INPUT(name, words)                                                                                         \
  vec4 name##_load4(uint io_type, uint element) {                                                                     \
    vec4 x;                                                                                                           \
    if (io_type == KVANT_IO_F32) {                                                                                    \
      x = uintBitsToFloat(uvec4(words[element], words[element + 1u], words[element + 2u], words[element + 3u]));      \
    } else {                                                                                                          \
      uint at = element >> 1;                                                                                         \
      uvec2 pairs = uvec2(words[at], words[at + 1u]);                                                                 \
      if ((element & 1u) != 0u) pairs = (pairs >> 16) | uvec2(pairs.y << 16, words[at + 2u] << 16);                   \
      x = io_unpack4(io_type, pairs);                                                                                 \
    }                                                                                                                 \
    return x;                                                                                                         \
  }

#define IO_OUTPUT(name, words)                                                                                        \
  void name##_store2(uint io_type, uint element, vec2 x) {                                                            \
    if (io_type == KVANT_IO_F32) {                                                                                    \
      words[element] = floatBitsToUint(x.x);                                                                          \
      words[element + 1u] = floatBitsToUint(x.y);                                                                     \
    } else {                                                                                                          \
      words[element >> 1] = io_pack4(io_type, x.xyxy).x;                                                              \
    }                                                                                                                 \
  }                                                                                                                   \
  void name##_store4(uint io_type, uint element, vec4 x) {                                                            \
    if (io_type == KVANT_IO_F32) {                                                                                    \
      uvec4 bits = floatBitsToUint(x);                                                                                \
      words[element] = bits.x;                                                                                        \
      words[element + 1u] = bits.y;                                                                                   \
      words[element + 2u] = bits.z;                                                                                   \
      words[element + 3u] = bits.w;                                                                                   \
    } else {                                                                                                          \
      uvec2 pairs = io_pack4(io_type, x);                                                                             \
      words[element >> 1] = pairs.x;                                                                                  \
      words[(element >> 1) + 1u] = pairs.y;                                                                           \
    }                                                                                                                 \
  }

#endif
