// Arithmetic in 16-bit floats.
#version 450
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
layout(local_size_x = 32) in;
layout(set = 0, binding = 0) buffer Data { uint data[]; };
void main() {
  f16vec2 x = unpackFloat2x16(data[0]);
  data[1] = packFloat2x16(fma(x, x, x));
}
