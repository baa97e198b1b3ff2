// read: gathers tokens of one side by slot and dequantizes them into a tensor.
//
// Tensors    out [token][kv_head][head_dim] of IO_TYPE_OUT; 16-bit types need an even offset and even strides, because
//            an invocation writes whole words. ReadParams in params/pages.h.
// Constants  FORMAT_K, HEAD_DIM_K (multiple of 8), PAGE_TOKENS, IO_TYPE_OUT name the side that is read; FLAGS: KVANT_ROTATE_K, KVANT_CENTRE_K.
// Grid       params::read_grid: one invocation per span of 32 elements (token, head, span), looping by the grid's
//            width. At most params::kMaxUnits units.
// Contract   A negative slot gives a row of zeros where write_zero_rows is 1; slots of other slabs leave their row
//            alone. Values are those of host/format_<name>.cpp, the head's mean added and rotated back as host/rotation.cpp does it, where FLAGS
//            say that the side is centred or rotated; f16 and bf16 output is rounded to nearest even.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/pages.h"
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 0u;
#define FORMATS_IN_USE (1u << FORMAT_K)
#include "io.glsl"
#include "kv_region.glsl"
#include "rotation.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_HEAD_DIM_K) const uint HEAD_DIM_K = 64u;
layout(constant_id = KVANT_SPEC_PAGE_TOKENS) const uint PAGE_TOKENS = 16u;
layout(constant_id = KVANT_SPEC_IO_TYPE_OUT) const uint IO_TYPE_OUT = 0u;
layout(constant_id = KVANT_SPEC_FLAGS) const uint FLAGS = 0u;

layout(push_constant) uniform Push { ReadParams params; };
layout(std430, binding = 0) readonly buffer Words16 { uvec4 words16[]; };
layout(std430, binding = 0) readonly buffer Words { uint words[]; };
layout(std430, binding = 1) writeonly buffer Output { uint out_words[]; };
layout(std430, binding = 2) readonly buffer Slots { int slots[]; };
layout(std430, binding = 3) readonly buffer Means { float means[]; };

KV_REGION(region, words16, words)
IO_OUTPUT(out, out_words)

void decode(uint base16, uint head, uint token, uint span, out vec4 x[8]) {
  uvec4 codes[8];
  uint high;
  uint scale;
  region_load_span(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS, base16, token, span, codes, high, scale);
  kv_decode_span(FORMAT_K, codes, high, scale, x);
  if ((FLAGS & KVANT_CENTRE_K) != 0u) {
    for (uint i = 0u; i < 8u; ++i) {
      uint e = 32u * span + 4u * i;
      if (e < HEAD_DIM_K) {
        uint at = head * HEAD_DIM_K + e;
        precise vec4 whole = x[i] + vec4(means[at], means[at + 1u], means[at + 2u], means[at + 3u]);
        x[i] = whole;
      }
    }
  }
}

void decode_rotated(uint base16, uint head, uint token, uint span, out vec4 x[8]) {
  RotationBlock block = rotation_block(HEAD_DIM_K, span);
  for (uint i = 0u; i < 8u; ++i) x[i] = vec4(0.0);
  for (uint other = 0u; other < max(block.spans, 1u); ++other) {
    vec4 y[8];
    decode(base16, head, token, block.first + other, y);
    rotation_add(block, other, y, x);
  }
  rotation_within(HEAD_DIM_K, block, x);
  rotation_sign_span(span, x);
}

void read_span(uint unit) {
  uint spans = kv_spans(HEAD_DIM_K);
  uint span = unit % spans;
  uint head = unit / spans % params.kv_heads;
  uint token = unit / spans / params.kv_heads;
  int slot = slots[params.slots_offset + token];
  uint page = uint(slot) / PAGE_TOKENS - params.page_begin;
  bool present = slot >= 0 && page < params.page_count;
  if (present || (slot < 0 && params.write_zero_rows != 0u)) {
    vec4 x[8];
    for (int i = 0; i < 8; ++i) x[i] = vec4(0.0);
    if (present) {
      uint base16 = (page * params.kv_heads + head) * kv_head_words16(FORMAT_K, HEAD_DIM_K, PAGE_TOKENS);
      if ((FLAGS & KVANT_ROTATE_K) != 0u)
        decode_rotated(base16, head, uint(slot) % PAGE_TOKENS, span, x);
      else
        decode(base16, head, uint(slot) % PAGE_TOKENS, span, x);
    }
    uint destination = params.out_offset + token * params.out_token_stride + head * params.out_head_stride + 32u * span;
    for (uint i = 0u; i < 8u; ++i) {
      if (32u * span + 4u * i < HEAD_DIM_K) out_store4(IO_TYPE_OUT, destination + 4u * i, x[i]);
    }
  }
}

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  uint units = params.tokens * params.kv_heads * kv_spans(HEAD_DIM_K);
  for (uint unit = gl_GlobalInvocationID.x; unit < units; unit += stride) read_span(unit);
}
