// Levels of the trellis formats, by arithmetic; params/trellis.h.
#ifndef KVANT_TRELLIS_LEVELS_GLSL
#define KVANT_TRELLIS_LEVELS_GLSL
#include "params/trellis.h"

uint trellis_count(uint format) { return 2u << (kv_code_bits(format) + kv_high_bits(format)); }

// The levels of four indices, whole numbers.
vec4 trellis_levels4(uint format, vec4 index) {
  vec3 t5 = vec3(KVANT_T5_A, KVANT_T5_B, KVANT_T5_C), t4 = vec3(KVANT_T4_A, KVANT_T4_B, KVANT_T4_C);
  vec3 t3 = vec3(KVANT_T3_A, KVANT_T3_B, KVANT_T3_C), t2 = vec3(KVANT_T2_A, KVANT_T2_B, KVANT_T2_C);
  uint count = trellis_count(format);
  vec3 polynomial = count == 64u ? t5 : count == 32u ? t4 : count == 16u ? t3 : t2;
  vec4 m = index - (float(count) - 1.0) * 0.5;
  vec4 square = m * m;
  return floor(m * (polynomial.x + square * (polynomial.y + square * polynomial.z)) + 0.5);
}

#endif
