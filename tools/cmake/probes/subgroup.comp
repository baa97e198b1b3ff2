// Subgroup arithmetic and shuffles.
#version 450
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
layout(local_size_x = 32) in;
layout(set = 0, binding = 0) buffer Data { float data[]; };
void main() { data[gl_SubgroupInvocationID] = subgroupAdd(subgroupShuffleXor(data[gl_SubgroupInvocationID], 1u)); }
