// copy: whole pages of one side, word by word, from one slab to another or within one.
//
// Tensors    none; pairs of local page numbers (source, destination). CopyParams in params/pages.h.
// Constants  none but the workgroup's size.
// Grid       params::copy_grid: one invocation per 16-byte word of a page, y = pair; both loop by the grid's size.
// Contract   Bytes as they are, unwritten ones included. No page is both source and destination in one dispatch.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "params/pages.h"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;

layout(push_constant) uniform Push { CopyParams params; };
layout(std430, binding = 0) readonly buffer Source { uvec4 source[]; };
layout(std430, binding = 1) writeonly buffer Destination { uvec4 destination[]; };
layout(std430, binding = 2) readonly buffer Pairs { uint pairs[]; };

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  for (uint pair = gl_WorkGroupID.y; pair < params.pair_count; pair += gl_NumWorkGroups.y) {
    uint from = pairs[params.pairs_offset + 2u * pair] * params.page_words16;
    uint to = pairs[params.pairs_offset + 2u * pair + 1u] * params.page_words16;
    for (uint word = gl_GlobalInvocationID.x; word < params.page_words16; word += stride) {
      destination[to + word] = source[from + word];
    }
  }
}
