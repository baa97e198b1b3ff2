// extract: planar pages into rows of canonical bytes, codes as they are: the inverse of import.
//
// Tensors    rows [sequence][token][kv_head] of HEAD_DIM_K elements with strides in bytes, all even; ImportParams in params/strided.h.
//            The destination's binding holds whole words.
// Constants  FORMAT_K (f32, f16, bf16 and ggml's blocks of 32), HEAD_DIM_K (a multiple of 8; of blocks, of 32), PAGE_TOKENS.
// Grid       params::import_grid: one invocation per block of a row (token, head, block), looping by the grid's width; y = sequence.
// Contract   Bits are moved, not values; nothing but the rows' bytes is written. Rows do not overlap; blocks that share a word of the
//            destination may be written at once (atomics on disjoint bits). No barrier, no subgroup operation.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/strided.h"
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 0u;
#define FORMATS_IN_USE (1u << FORMAT_K)
#include "canonical.glsl"
#include "kv_region.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_HEAD_DIM_K) const uint HEAD_DIM_K = 64u;
layout(constant_id = KVANT_SPEC_PAGE_TOKENS) const uint PAGE_TOKENS = 16u;

layout(push_constant) uniform Push { ImportParams params; };
layout(std430, binding = 0) readonly buffer Words16 { uvec4 words16[]; };
layout(std430, binding = 0) readonly buffer Words { uint words[]; };
layout(std430, binding = 1) buffer Destination { uint destination_words[]; };

KV_REGION(region, words16, words)
CANONICAL_OUTPUT(destination, destination_words)

void extract_block(uint unit) {
  uint blocks = kv_blocks(FORMAT_K, HEAD_DIM_K);
  uint block = unit % blocks;
  uint head = unit / blocks % params.kv_heads;
  uint token = unit / blocks / params.kv_heads;
  uint sequence = gl_WorkGroupID.y;
  uint block_bytes = kv_scale_bytes(FORMAT_K) + 4u * canonical_words(FORMAT_K);
  uint at = params.offset + sequence * params.seq_stride + token * params.token_stride + head * params.head_stride + block * block_bytes;
  uint page = params.first_page + sequence * params.seq_pages + token / PAGE_TOKENS;
  uint base16 = (page * params.kv_heads + head) * kv_head_words16(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS);
  uvec4 codes[8];
  uint high, scale;
  region_load_span(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS, base16, token % PAGE_TOKENS, block, codes, high, scale);
  if (kv_scale_bytes(FORMAT_K) == 0u) {
    uint bytes = (HEAD_DIM_K - 32u * block) * kv_code_bits(FORMAT_K) / 8u;
    for (uint i = 0u; i < 32u; ++i) {
      if (i < kv_code_bits(FORMAT_K) && 4u * i < bytes) destination_store_word(at + 4u * i, codes[i >> 2][i & 3u]);
    }
  } else {
    uint body[8];
    canonical_pack(FORMAT_K, codes[0], codes[1], high, body);
    destination_store_block(FORMAT_K, at, body, scale);
  }
}

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  uint units = params.tokens * params.kv_heads * kv_blocks(FORMAT_K, HEAD_DIM_K);
  for (uint unit = gl_GlobalInvocationID.x; unit < units; unit += stride) extract_block(unit);
}
