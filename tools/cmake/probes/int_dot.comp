// Dot products of packed 8-bit integers.
#version 450
#extension GL_EXT_integer_dot_product : require
layout(local_size_x = 32) in;
layout(set = 0, binding = 0) buffer Data { int data[]; };
void main() { data[2] = dotPacked4x8AccSatEXT(data[0], data[1], dotPacked4x8EXT(data[0], data[1])); }
