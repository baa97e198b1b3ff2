#version 450
// What the decode kernels are measured against: attention of one query by one invocation per query head, over rows that lie one after the
// other in ggml's blocks, as one writes it first. No pages, no splits, nothing shared between invocations.
// Constants: local size, FORMAT (of blocks of 32, K and V alike), HEAD_DIM (a multiple of 32), GROUP. Grid: x = query heads.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "canonical.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint FORMAT = 0u;
layout(constant_id = 2) const uint HEAD_DIM = 128u;
layout(constant_id = 3) const uint GROUP = 1u;

// Offsets in bytes of the one buffer. Rows of K and V: [token][kv_head]; of Q and OUT: [query head].
layout(push_constant) uniform Push {
  uint tokens, kv_heads, row_bytes, k_offset, v_offset, q_offset, out_offset;
} params;
layout(std430, binding = 0) buffer Words { uint words[]; };
CANONICAL_INPUT(rows, words)

const uint SPANS = HEAD_DIM / 32u;

void load_span(uint row, uint span, out vec4 x[8]) {
  uint body[8];
  uvec4 codes[8];
  uint scale, high;
  rows_load_block(FORMAT, row + span * (kv_scale_bytes(FORMAT) + 4u * canonical_words(FORMAT)), body, scale);
  canonical_unpack(FORMAT, body, codes, high);
  kv_decode_span(FORMAT, codes, high, scale, x);
}

void main() {
  const uint head = gl_GlobalInvocationID.x;
  if (head >= params.kv_heads * GROUP) return;
  vec4 q[HEAD_DIM / 4u], sums[HEAD_DIM / 4u];
  const float scale = inversesqrt(float(HEAD_DIM));
  for (uint i = 0u; i < HEAD_DIM / 4u; ++i) {
    const uint at = params.q_offset / 4u + head * HEAD_DIM + 4u * i;
    q[i] = scale * uintBitsToFloat(uvec4(words[at], words[at + 1u], words[at + 2u], words[at + 3u]));
    sums[i] = vec4(0.0);
  }
  float largest = -3.0e38, total = 0.0;
  for (uint token = 0u; token < params.tokens; ++token) {
    const uint row = (token * params.kv_heads + head / GROUP) * params.row_bytes;
    float logit = 0.0;
    for (uint span = 0u; span < SPANS; ++span) {
      vec4 x[8];
      load_span(params.k_offset + row, span, x);
      for (uint i = 0u; i < 8u; ++i) logit += dot(q[span * 8u + i], x[i]);
    }
    const float before = largest;
    largest = max(largest, logit);
    const float rescale = exp(before - largest), weight = exp(logit - largest);
    total = total * rescale + weight;
    for (uint span = 0u; span < SPANS; ++span) {
      vec4 x[8];
      load_span(params.v_offset + row, span, x);
      for (uint i = 0u; i < 8u; ++i) sums[span * 8u + i] = sums[span * 8u + i] * rescale + weight * x[i];
    }
  }
  for (uint i = 0u; i < HEAD_DIM / 4u; ++i) {
    const uint at = params.out_offset / 4u + head * HEAD_DIM + 4u * i;
    const uvec4 bits = floatBitsToUint(sums[i] / total);
    words[at] = bits.x, words[at + 1u] = bits.y, words[at + 2u] = bits.z, words[at + 3u] = bits.w;
  }
}
