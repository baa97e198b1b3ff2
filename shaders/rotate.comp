// rotate: turns pairs of elements of f32 rows by given angles, in place: the rotation of RoPE by a number of positions.
//
// Tensors    rows [row][head_dim] of f32 without gaps; cosine and sine of each pair's angle. RotateParams in params/pages.h.
// Constants  none but the workgroup's size.
// Grid       params::rotate_grid: one invocation per pair of a row, looping by the grid's width.
// Contract   Pair i of a row is (2i, 2i + 1) or (i, i + pairs). Elements beyond the pairs stay. fp32, each product rounded.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "params/pages.h"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;

layout(push_constant) uniform Push { RotateParams params; };
layout(std430, binding = 0) buffer Rows { float rows[]; };
layout(std430, binding = 1) readonly buffer Angles { vec2 angles[]; };  // cosine, sine

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  for (uint unit = gl_GlobalInvocationID.x; unit < params.rows * params.pairs; unit += stride) {
    uint pair = unit % params.pairs;
    uint row = params.row_offset + unit / params.pairs * params.head_dim;
    uint first = row + (params.halves != 0u ? pair : 2u * pair);
    uint second = first + (params.halves != 0u ? params.pairs : 1u);
    vec2 angle = angles[params.angles_offset + pair];
    float a = rows[first];
    float b = rows[second];
    precise float turned_a = a * angle.x - b * angle.y;
    precise float turned_b = a * angle.y + b * angle.x;
    rows[first] = turned_a;
    rows[second] = turned_b;
  }
}
