// One compute shader that keeps every rule of a tier-0 module, and breaks one where a define says so.
#version 450
#extension GL_EXT_shader_8bit_storage : enable
#extension GL_EXT_shader_16bit_storage : enable
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : enable
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : enable
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : enable
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : enable
layout(local_size_x_id = 0) in;
#ifdef HIGH_SPEC_ID
layout(constant_id = 77) const uint COUNT = 4u;
#else
layout(constant_id = 3) const uint COUNT = 4u;
#endif
#ifdef SECOND_SET
layout(set = 1, binding = 0) buffer In { uint words[]; };
#else
layout(set = 0, binding = 0) buffer In { uint words[]; };
#endif
#ifdef BYTE_STORAGE
layout(set = 0, binding = 1) buffer Out { uint8_t sums[]; };
#elif defined(SHORT_STORAGE)
layout(set = 0, binding = 1) buffer Out { uint16_t sums[]; };
#elif defined(HALF_STORAGE)
layout(set = 0, binding = 1) buffer Out { float16_t sums[]; };
#else
layout(set = 0, binding = 1) buffer Out { uint sums[]; };
#endif
layout(push_constant) uniform Params { uint begin; ivec2 extent; };
shared uint partial[64];

uint exchange(uint value) {
  partial[gl_LocalInvocationIndex] = value;
  barrier();
  return partial[gl_LocalInvocationIndex ^ 1u];
}

void main() {
  uint sum = begin;
  for (uint i = 0u; i < COUNT; ++i) {
    for (int j = 0; j < extent.x; ++j) sum += words[j];
#ifdef BARRIER_IN_LOOP
    barrier();
#endif
#ifdef BARRIER_IN_CALL
    sum += exchange(sum);
#endif
  }
#ifdef INT64
  sum += uint(uint64_t(sum) * 3ul >> 32);
#endif
#ifdef INT8
  sum += uint(uint8_t(sum) * uint8_t(extent.y));
#endif
#ifdef INT16
  sum += uint(uint16_t(sum) * uint16_t(extent.y));
#endif
#ifdef FLOAT16
  sum += uint(float16_t(sum) * float16_t(extent.y));
#endif
  sum = exchange(sum);
#ifdef BYTE_STORAGE
  sums[gl_GlobalInvocationID.x] = uint8_t(sum);
#elif defined(SHORT_STORAGE)
  sums[gl_GlobalInvocationID.x] = uint16_t(sum);
#elif defined(HALF_STORAGE)
  sums[gl_GlobalInvocationID.x] = float16_t(sum);
#else
  sums[gl_GlobalInvocationID.x] = sum;
#endif
}
