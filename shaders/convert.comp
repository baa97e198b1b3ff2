// convert: pages of one side from format FORMAT_K to format FORMAT_V: decode, then encode, without leaving the device.
//
// Tensors    none; triples (local source page, local destination page, tokens in use). ConvertParams in params/pages.h.
// Constants  FORMAT_K (source), FORMAT_V (destination), HEAD_DIM_K (multiple of 8), PAGE_TOKENS.
// Grid       params::convert_grid: one invocation per destination block of a row (token, head, block), y = triple; both
//            loop by the grid's size.
// Contract   The result is host decode followed by host encode, bit for bit. Tokens not in use are neither read nor
//            written. No page is both source and destination in one dispatch.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/pages.h"
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 0u;
layout(constant_id = KVANT_SPEC_FORMAT_V) const uint FORMAT_V = 0u;
#define FORMATS_IN_USE (1u << FORMAT_K | 1u << FORMAT_V)
#include "kv_region.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_HEAD_DIM_K) const uint HEAD_DIM_K = 64u;
layout(constant_id = KVANT_SPEC_PAGE_TOKENS) const uint PAGE_TOKENS = 16u;

layout(push_constant) uniform Push { ConvertParams params; };
layout(std430, binding = 0) readonly buffer SourceWords16 { uvec4 source_words16[]; };
layout(std430, binding = 0) readonly buffer SourceWords { uint source_words[]; };
layout(std430, binding = 1) buffer DestinationWords16 { uvec4 destination_words16[]; };
layout(std430, binding = 1) buffer DestinationWords { uint destination_words[]; };
layout(std430, binding = 2) readonly buffer Triples { uint triples[]; };

KV_REGION(source, source_words16, source_words)
KV_REGION_STORE(destination, destination_words16, destination_words)

void convert_block(uint source_page, uint destination_page, uint token, uint head, uint block) {
  uint source_base16 =
      (source_page * params.kv_heads + head) * kv_head_words16(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS);
  uint destination_base16 =
      (destination_page * params.kv_heads + head) * kv_head_words16(FORMAT_V, HEAD_DIM_K, PAGE_TOKENS);
  vec4 x[16];
  for (uint s = 0u; s < 2u; ++s) {
    uint span = block * (kv_block(FORMAT_V) / 32u) + s;
    bool present = 32u * s < kv_block(FORMAT_V) && span < kv_spans(HEAD_DIM_K);
    vec4 part[8];
    for (int i = 0; i < 8; ++i) part[i] = vec4(0.0);
    if (present) {
      uvec4 codes[8];
      uint high;
      uint scale;
      source_load_span(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS, source_base16, token, span, codes, high, scale);
      kv_decode_span(FORMAT_K, codes, high, scale, part);
    }
    for (uint i = 0u; i < 8u; ++i) {
      bool inside = 32u * span + 4u * i < HEAD_DIM_K;
      x[8u * s + i] = inside ? part[i] : vec4(0.0);
    }
  }
  uvec4 codes[16];
  uvec2 high;
  uint scale;
  kv_encode_block(FORMAT_V, x, codes, high, scale);
  destination_store_block(FORMAT_V, HEAD_DIM_K, PAGE_TOKENS, destination_base16, token, block, codes, high, scale);
}

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  uint blocks = kv_blocks(FORMAT_V, HEAD_DIM_K);
  for (uint triple = gl_WorkGroupID.y; triple < params.triple_count; triple += gl_NumWorkGroups.y) {
    uint at = params.triples_offset + 3u * triple;
    uint units = triples[at + 2u] * params.kv_heads * blocks;
    for (uint unit = gl_GlobalInvocationID.x; unit < units; unit += stride) {
      uint row = unit / blocks;
      convert_block(triples[at], triples[at + 1u], row / params.kv_heads, row % params.kv_heads, unit % blocks);
    }
  }
}
