// gather: tokens of one side, from anywhere in a slab, together into new pages, codes as they are.
//
// Tensors    none; a map of PAGE_TOKENS + 1 words a page: the local destination page, then for each of its tokens the local source
//            slot (page * PAGE_TOKENS + offset), negative = not from this slab. GatherParams in params/pages.h.
// Constants  FORMAT_K, HEAD_DIM_K, PAGE_TOKENS name the side.
// Grid       params::gather_grid: one invocation per 32-bit word of a page, y = page; both loop by the grid's size.
// Contract   A destination page is the source of no token of the same dispatch, and is destination once. Bytes of tokens that are
//            not from this slab stay: where rows of scales share a word, only their own bytes are written.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/pages.h"
#include "page_layout.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 0u;
layout(constant_id = KVANT_SPEC_HEAD_DIM_K) const uint HEAD_DIM_K = 64u;
layout(constant_id = KVANT_SPEC_PAGE_TOKENS) const uint PAGE_TOKENS = 16u;

layout(push_constant) uniform Push { GatherParams params; };
layout(std430, binding = 0) readonly buffer Source { uint source[]; };
layout(std430, binding = 1) buffer Destination { uint destination[]; };
layout(std430, binding = 2) readonly buffer Map { int map[]; };

// Word offset of a head's planes in a region.
uint head_base(uint page, uint head) {
  return (page * params.kv_heads + head) * kv_head_words16(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS) * 4u;
}

// The same word of another token's row: rows of `row_words` words from `plane` on.
void move_word(uint entry, uint head, uint to, uint plane, uint row_words, uint in_plane) {
  int slot = map[entry + 1u + in_plane / row_words];
  if (slot < 0) return;
  uint from = head_base(uint(slot) / PAGE_TOKENS, head) + plane + uint(slot) % PAGE_TOKENS * row_words + in_plane % row_words;
  destination[to] = source[from];
}

// Four bytes, each of which may be of another token.
void move_bytes(uint entry, uint head, uint to, uint plane, uint row_bytes, uint in_plane) {
  uint mask = 0u;
  uint value = 0u;
  for (uint i = 0u; i < 4u; ++i) {
    uint at = in_plane * 4u + i;
    int slot = map[entry + 1u + at / row_bytes];
    if (slot >= 0) {
      uint from = uint(slot) % PAGE_TOKENS * row_bytes + at % row_bytes;
      uint word = source[head_base(uint(slot) / PAGE_TOKENS, head) + plane + from / 4u];
      value |= (word >> (from % 4u * 8u) & 0xFFu) << (i * 8u);
      mask |= 0xFFu << (i * 8u);
    }
  }
  if (mask != 0u) destination[to] = (destination[to] & ~mask) | value;
}

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  uint head_words = kv_head_words16(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS) * 4u;
  uint high = kv_high_offset_words(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS);
  uint scales = kv_scale_offset_words(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS);
  for (uint page = gl_WorkGroupID.y; page < params.page_count; page += gl_NumWorkGroups.y) {
    uint entry = params.map_offset + page * (PAGE_TOKENS + 1u);
    for (uint word = gl_GlobalInvocationID.x; word < head_words * params.kv_heads; word += stride) {
      uint head = word / head_words;
      uint offset = word % head_words;
      uint to = head_base(uint(map[entry]), head) + offset;
      if (offset < high) {
        move_word(entry, head, to, 0u, kv_code_row_words(FORMAT_K, HEAD_DIM_K), offset);
      } else if (offset < scales) {
        move_word(entry, head, to, high, kv_high_row_words(FORMAT_K, HEAD_DIM_K), offset - high);
      } else {
        move_bytes(entry, head, to, scales, kv_scale_row_bytes(FORMAT_K, HEAD_DIM_K), offset - scales);
      }
    }
  }
}
