// means: the mean of the rows of each KV head over the first tokens of a step, which centring subtracts from all later ones too.
//
// Tensors    K and V as append's; MEANS f32 [kv_head][head_dim] of K, then from v_means_offset on of V. MeansParams in params/pages.h.
// Constants  HEAD_DIM_K/V (multiples of 8), IO_TYPE_IN, LOCAL_SIZE, FLAGS (KVANT_ROTATE_K, KVANT_ROTATE_V).
// Grid       x = KV head, y = side. A workgroup for each.
// Contract   Sums in the order of the tokens, in f32; tokens whose slot is negative are left out. Zeros where the square of the mean's norm is not
//            more than KVANT_CENTRE_GAIN of the mean square of the rows' norms, and where that is no finite number. Of a rotated side the mean is
//            that of the rotated rows: host/means.cpp does the same operations in the same order.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/pages.h"
#include "io.glsl"
#include "rotation.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_LOCAL_SIZE) const uint LOCAL_SIZE = 64u;
layout(constant_id = KVANT_SPEC_HEAD_DIM_K) const uint HEAD_DIM_K = 64u;
layout(constant_id = KVANT_SPEC_HEAD_DIM_V) const uint HEAD_DIM_V = 64u;
layout(constant_id = KVANT_SPEC_IO_TYPE_IN) const uint IO_TYPE_IN = 0u;
layout(constant_id = KVANT_SPEC_FLAGS) const uint FLAGS = 0u;

layout(push_constant) uniform Push { MeansParams params; };
layout(std430, binding = 0) readonly buffer KTensor { uint k_tensor[]; };
layout(std430, binding = 1) readonly buffer VTensor { uint v_tensor[]; };
layout(std430, binding = 2) readonly buffer Slots { int slots[]; };
layout(std430, binding = 3) writeonly buffer Means { float means[]; };

IO_INPUT(k_in, k_tensor)
IO_INPUT(v_in, v_tensor)

const uint MOST_QUADS = (HEAD_DIM_K > HEAD_DIM_V ? HEAD_DIM_K : HEAD_DIM_V) / 4u;
shared vec4 mean_row[MOST_QUADS];
shared float quad_energy[MOST_QUADS];  // of the rows, summed over tokens

vec4 mean_load4(uint io_type, uint element) { return mean_row[element / 4u]; }
KV_ROTATED_LOAD(mean_rotated, mean_load4)

#define SUM_QUAD(name, offset, token_stride, head_stride)                                                  \
  void sum_##name(uint quad) {                                                                             \
    vec4 sum = vec4(0.0);                                                                                  \
    vec4 squares = vec4(0.0);                                                                              \
    for (uint token = 0u; token < params.tokens; ++token) {                                                \
      if (slots[params.slots_offset + token] >= 0) {                                                       \
        vec4 x = name##_in_load4(IO_TYPE_IN, offset + token * token_stride + gl_WorkGroupID.x * head_stride + quad * 4u); \
        precise vec4 next = sum + x;                                                                       \
        precise vec4 square = x * x;                                                                       \
        precise vec4 more = squares + square;                                                              \
        sum = next;                                                                                        \
        squares = more;                                                                                    \
      }                                                                                                    \
    }                                                                                                      \
    precise vec4 mean = sum * params.inverse;                                                              \
    precise float energy = ((squares.x + squares.y) + squares.z) + squares.w;                              \
    mean_row[quad] = mean;                                                                                 \
    quad_energy[quad] = energy;                                                                            \
  }
SUM_QUAD(k, params.k_offset, params.k_token_stride, params.k_head_stride)
SUM_QUAD(v, params.v_offset, params.v_token_stride, params.v_head_stride)

// Whether the mean holds enough of the rows' energy.
bool pays(uint quads) {
  precise float of_mean = 0.0;
  precise float of_rows = 0.0;
  for (uint quad = 0u; quad < quads; ++quad) {
    precise vec4 square = mean_row[quad] * mean_row[quad];
    of_mean += ((square.x + square.y) + square.z) + square.w;
    of_rows += quad_energy[quad];
  }
  precise float least = of_rows * params.inverse;
  least *= KVANT_CENTRE_GAIN;
  return of_mean > least && of_mean <= 3.4028235e38;
}

void main() {
  const bool is_v = gl_WorkGroupID.y != 0u;
  if ((params.sides & (is_v ? 2u : 1u)) == 0u) return;
  const uint head_dim = is_v ? HEAD_DIM_V : HEAD_DIM_K;
  for (uint quad = gl_LocalInvocationID.x; quad < head_dim / 4u; quad += LOCAL_SIZE) {
    if (is_v)
      sum_v(quad);
    else
      sum_k(quad);
  }
  barrier();
  const bool centred = pays(head_dim / 4u);
  const bool rotated = (FLAGS & (is_v ? KVANT_ROTATE_V : KVANT_ROTATE_K)) != 0u;
  const uint first = (is_v ? params.v_means_offset : 0u) + gl_WorkGroupID.x * head_dim;
  for (uint span = gl_LocalInvocationID.x; span < (head_dim + 31u) / 32u; span += LOCAL_SIZE) {
    vec4 x[8];
    if (rotated) {
      mean_rotated(0u, head_dim, 0u, span, x);
    } else {
      for (uint i = 0u; i < 8u; ++i) x[i] = 32u * span + 4u * i < head_dim ? mean_row[span * 8u + i] : vec4(0.0);
    }
    for (uint i = 0u; i < 8u; ++i) {
      const uint e = 32u * span + 4u * i;
      if (e < head_dim) {
        means[first + e] = centred ? x[i].x : 0.0;
        means[first + e + 1u] = centred ? x[i].y : 0.0;
        means[first + e + 2u] = centred ? x[i].z : 0.0;
        means[first + e + 3u] = centred ? x[i].w : 0.0;
      }
    }
  }
}
