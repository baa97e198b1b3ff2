// import: rows of canonical bytes into planar pages, codes as they are.
//
// Tensors    rows [sequence][token][kv_head] of HEAD_DIM_K elements with strides in bytes, all even; ImportParams in params/strided.h.
//            The source's binding holds whole words.
// Constants  FORMAT_K (f32, f16, bf16 and ggml's blocks of 32), HEAD_DIM_K (a multiple of 8; of blocks, of 32), PAGE_TOKENS.
// Grid       params::import_grid: one invocation per block of a row (token, head, block), looping by the grid's width; y = sequence.
// Contract   Bits are moved, not values. A row's tail up to row_pad is zeros. No two rows go to the same slot; blocks that share a
//            word of the scale plane may be written at once (atomics on disjoint bits). No barrier, no subgroup operation.
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
layout(std430, binding = 0) buffer Words16 { uvec4 words16[]; };
layout(std430, binding = 0) buffer Words { uint words[]; };
layout(std430, binding = 1) readonly buffer Source { uint source_words[]; };

KV_REGION_STORE(region, words16, words)
CANONICAL_INPUT(source, source_words)

// Code words of a span of plain elements, zeros behind the row's `bytes` that are left.
void load_elements(uint at, uint bytes, out uvec4 codes[16]) {
  for (int i = 0; i < 16; ++i) codes[i] = uvec4(0u);
  for (uint i = 0u; i < 32u; ++i) {
    if (i < kv_code_bits(FORMAT_K) && 4u * i < bytes) codes[i >> 2][i & 3u] = source_word(at + 4u * i);
  }
}

void import_block(uint unit) {
  uint blocks = kv_blocks(FORMAT_K, HEAD_DIM_K);
  uint block = unit % blocks;
  uint head = unit / blocks % params.kv_heads;
  uint token = unit / blocks / params.kv_heads;
  uint sequence = gl_WorkGroupID.y;
  uint block_bytes = kv_scale_bytes(FORMAT_K) + 4u * canonical_words(FORMAT_K);
  uint at = params.offset + sequence * params.seq_stride + token * params.token_stride + head * params.head_stride +
            block * block_bytes;
  uvec4 codes[16];
  uvec2 high = uvec2(0u);
  uint scale = 0u;
  if (kv_scale_bytes(FORMAT_K) == 0u) {
    load_elements(at, (HEAD_DIM_K - 32u * block) * kv_code_bits(FORMAT_K) / 8u, codes);
  } else {
    uint body[8];
    source_load_block(FORMAT_K, at, body, scale);
    uvec4 span[8];
    canonical_unpack(FORMAT_K, body, span, high.x);
    for (int i = 0; i < 16; ++i) codes[i] = i < 2 ? span[i] : uvec4(0u);
  }
  uint page = params.first_page + sequence * params.seq_pages + token / PAGE_TOKENS;
  uint base16 = (page * params.kv_heads + head) * kv_head_words16(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS);
  region_store_block(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS, base16, token % PAGE_TOKENS, block, codes, high, scale);
}

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  uint units = params.tokens * params.kv_heads * kv_blocks(FORMAT_K, HEAD_DIM_K);
  for (uint unit = gl_GlobalInvocationID.x; unit < units; unit += stride) import_block(unit);
}
