// Cooperative matrices of workgroup scope with reductions, from NVIDIA's second extension.
#version 450
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
layout(local_size_x = 128) in;
layout(set = 0, binding = 0) buffer Data { float data[]; };
float largest(const in float a, const in float b) { return max(a, b); }
void main() {
  coopmat<float, gl_ScopeWorkgroup, 32, 32, gl_MatrixUseAccumulator> a, r;
  coopMatLoad(a, data, 0, 32, gl_CooperativeMatrixLayoutRowMajor);
  coopMatReduceNV(r, a, gl_CooperativeMatrixReduceRowNV, largest);
  coopMatStore(r, data, 0, 32, gl_CooperativeMatrixLayoutRowMajor);
}
