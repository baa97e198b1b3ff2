#version 450
// attend_merge: joins the partial results of a query's splits by their log-sum-exps, exactly as one softmax over all
// keys.
// Tensors: PARTIAL rows and log-sum-exps of attend_decode or attend_prefill -> OUT row, LSE. A workgroup per (query,
// head).
// Constants: LOCAL_SIZE, HEAD_DIM_V, IO_TYPE_OUT, FLAGS (sinks, log-sum-exp, KVANT_CENTRE_V: the KV head's mean of V is added by
// the share that the keys have of the softmax; KVANT_ROTATE_V: then the row is rotated back). Grid: x = merge items, y = q_heads.
// Numeric contract: weights exp(lse_s - max lse) / sum in fp32, splits added in order; empty splits (lse = -infinity)
// are skipped, not multiplied; no key at all gives zeros and a log-sum-exp of -infinity (with sinks: the sink's logit).
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/attend.h"
#include "softmax_state.glsl"
#include "io.glsl"
#include "rotation.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_LOCAL_SIZE) const uint LOCAL_SIZE = 64u;
layout(constant_id = KVANT_SPEC_HEAD_DIM_V) const uint HEAD_DIM_V = 128u;
layout(constant_id = KVANT_SPEC_IO_TYPE_OUT) const uint IO_TYPE_OUT = 0u;
layout(constant_id = KVANT_SPEC_FLAGS) const uint FLAGS = 0u;

layout(push_constant) uniform Push { MergeParams params; };
layout(std430, set = 0, binding = 0) readonly buffer Partial { float partial_words[]; };
layout(std430, set = 0, binding = 1) writeonly buffer Output { uint out_words[]; };
layout(std430, set = 0, binding = 2) readonly buffer Meta { uint meta[]; };
layout(std430, set = 0, binding = 3) readonly buffer Heads { float heads[]; };
layout(std430, set = 0, binding = 4) writeonly buffer LogSumExp { float lse_words[]; };
layout(std430, set = 0, binding = 5) readonly buffer Means { float means[]; };

IO_OUTPUT(out, out_words)

const bool CENTRED = (FLAGS & KVANT_CENTRE_V) != 0u;
const bool ROTATED = (FLAGS & KVANT_ROTATE_V) != 0u;
const uint SPANS = (HEAD_DIM_V + 31u) / 32u;
shared vec4 rotated_row[ROTATED ? SPANS * 8u : 1u];  // zero beyond the head dimension

// Takes the row in shared memory back and writes it.
void write_rotated(uint row) {
  for (uint span = gl_LocalInvocationID.x; span < SPANS; span += LOCAL_SIZE) {
    const RotationBlock block = rotation_block(HEAD_DIM_V, span);
    vec4 x[8];
    for (uint i = 0u; i < 8u; ++i) x[i] = vec4(0.0);
    for (uint other = 0u; other < max(block.spans, 1u); ++other) {
      vec4 y[8];
      for (uint i = 0u; i < 8u; ++i) y[i] = rotated_row[(block.first + other) * 8u + i];
      rotation_add(block, other, y, x);
    }
    rotation_within(HEAD_DIM_V, block, x);
    rotation_sign_span(span, x);
    for (uint i = 0u; i < 8u; ++i) {
      if (32u * span + 4u * i < HEAD_DIM_V) out_store4(IO_TYPE_OUT, row + 32u * span + 4u * i, x[i]);
    }
  }
}

void main() {
  const uint at = params.items_offset + (params.item_begin + gl_WorkGroupID.x) * 4u;
  const MergeItem item = MergeItem(meta[at], meta[at + 1u], meta[at + 2u], meta[at + 3u]);
  const uint head = gl_WorkGroupID.y;
  const uint first = item.partial_row + head;

  float largest = SOFTMAX_EMPTY;
  for (uint s = 0u; s < item.split_count; ++s)
    largest = max(largest, partial_words[params.partial_lse_offset + first + s * item.split_stride]);
  float sum = 0.0;
  for (uint s = 0u; s < item.split_count; ++s)
    sum += softmax_weight(partial_words[params.partial_lse_offset + first + s * item.split_stride], largest);
  const float of_keys = sum;
  float joint = largest;
  float factor = 1.0;
  if ((FLAGS & KVANT_ATTEND_SINKS) != 0u) factor = softmax_join(joint, sum, heads[params.sinks_offset + head], 1.0);
  factor = sum == 0.0 ? 0.0 : factor / sum;

  const float held = of_keys * factor;
  const uint out_row = params.out_offset + item.q_row * params.out_token_stride + head * params.out_head_stride;
  for (uint e = gl_LocalInvocationID.x * 4u; e < (ROTATED ? SPANS * 32u : HEAD_DIM_V); e += LOCAL_SIZE * 4u) {
    vec4 x = vec4(0.0);
    for (uint s = 0u; s < (e < HEAD_DIM_V ? item.split_count : 0u); ++s) {
      const uint row = first + s * item.split_stride;
      const float lse = partial_words[params.partial_lse_offset + row];
      if (lse == SOFTMAX_EMPTY) continue;
      const float weight = softmax_weight(lse, largest) * factor;
      const uint w = row * HEAD_DIM_V + e;
      x += weight * vec4(partial_words[w], partial_words[w + 1u], partial_words[w + 2u], partial_words[w + 3u]);
    }
    if (CENTRED && e < HEAD_DIM_V) {
      const uint w = head / params.group * HEAD_DIM_V + e;
      x += held * vec4(means[w], means[w + 1u], means[w + 2u], means[w + 3u]);
    }
    if (ROTATED)
      rotated_row[e / 4u] = x;
    else
      out_store4(IO_TYPE_OUT, out_row + e, x);
  }
  if (ROTATED) {
    barrier();
    write_rotated(out_row);
  }
  if ((FLAGS & KVANT_ATTEND_LSE) != 0u && gl_LocalInvocationID.x == 0u)
    lse_words[params.lse_offset + item.q_row * params.q_heads + head] = softmax_lse(joint, sum);
}
