// append: quantizes the K and V rows of fresh tokens and scatters them into pages by slot, both sides in one dispatch.
//
// Tensors    K and V [token][kv_head][head_dim] of IO_TYPE_IN, any offset and strides; AppendParams in params/pages.h.
// Constants  FORMAT_K/V, HEAD_DIM_K/V (multiples of 8), PAGE_TOKENS, IO_TYPE_IN, FLAGS.
// Grid       params::append_grid: one invocation per block of a row, token-major (token, head, block), looping by the
//            grid's width; y = side. At most params::kMaxUnits units.
// Contract   Slots that are negative or lie in other slabs are skipped. Elements past the head dimension count as zeros.
//            The bytes are those of host/format_<name>.cpp. Two tokens of one dispatch must not have the same slot;
//            tokens that share a word of the scale plane may (atomics on disjoint bits). No barrier, no subgroup
//            operation. Where attention mass is counted, that of the tokens written begins at 0.
//            FLAGS: KVANT_ROTATE_K, KVANT_ROTATE_V: rows are rotated first, as host/rotation.cpp does it. KVANT_CENTRE_K, KVANT_CENTRE_V: then
//            the head's mean is subtracted.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/pages.h"
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 0u;
layout(constant_id = KVANT_SPEC_FORMAT_V) const uint FORMAT_V = 0u;
#define FORMATS_IN_USE (1u << FORMAT_K | 1u << FORMAT_V)
#include "io.glsl"
#include "kv_region.glsl"
#include "rotation.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_HEAD_DIM_K) const uint HEAD_DIM_K = 64u;
layout(constant_id = KVANT_SPEC_HEAD_DIM_V) const uint HEAD_DIM_V = 64u;
layout(constant_id = KVANT_SPEC_PAGE_TOKENS) const uint PAGE_TOKENS = 16u;
layout(constant_id = KVANT_SPEC_IO_TYPE_IN) const uint IO_TYPE_IN = 0u;
layout(constant_id = KVANT_SPEC_FLAGS) const uint FLAGS = 0u;

layout(push_constant) uniform Push { AppendParams params; };
layout(std430, binding = 0) buffer KWords16 { uvec4 k_words16[]; };
layout(std430, binding = 0) buffer KWords { uint k_words[]; };
layout(std430, binding = 1) buffer VWords16 { uvec4 v_words16[]; };
layout(std430, binding = 1) buffer VWords { uint v_words[]; };
layout(std430, binding = 2) readonly buffer KTensor { uint k_tensor[]; };
layout(std430, binding = 3) readonly buffer VTensor { uint v_tensor[]; };
layout(std430, binding = 4) readonly buffer Slots { int slots[]; };
layout(std430, binding = 5) writeonly buffer Mass { uint mass_words[]; };
layout(std430, binding = 6) readonly buffer Means { float means[]; };

KV_REGION_STORE(k, k_words16, k_words)
KV_REGION_STORE(v, v_words16, v_words)
IO_INPUT(k_in, k_tensor)
IO_INPUT(v_in, v_tensor)
KV_ROTATED_LOAD(k_rotated, k_in_load4)
KV_ROTATED_LOAD(v_rotated, v_in_load4)

#define APPEND_SIDE(name, rotate, centre, format, head_dim, slots_offset, offset, token_stride, head_stride, means_offset) \
  void append_##name(uint unit) {                                                                                     \
    uint blocks = kv_blocks(format, head_dim);                                                                        \
    uint block = unit % blocks;                                                                                       \
    uint head = unit / blocks % params.kv_heads;                                                                      \
    uint token = unit / blocks / params.kv_heads;                                                                     \
    int slot = slots[slots_offset + token * params.slots_stride];                                                     \
    uint page = uint(slot) / PAGE_TOKENS - params.page_begin;                                                         \
    if (slot >= 0 && page < params.page_count) {                                                                      \
      uint begin = block * kv_block(format);                                                                          \
      uint row = offset + token * token_stride + head * head_stride;                                                  \
      uint limit = min(kv_block(format), head_dim - begin);                                                           \
      vec4 x[16];                                                                                                     \
      for (uint i = 0u; i < 16u; ++i) x[i] = vec4(0.0);                                                               \
      if ((FLAGS & rotate) != 0u) {                                                                                   \
        vec4 low[8];                                                                                                  \
        vec4 high[8];                                                                                                 \
        name##_rotated(IO_TYPE_IN, head_dim, row, begin / 32u, low);                                                  \
        for (uint i = 0u; i < 8u; ++i) high[i] = vec4(0.0);                                                           \
        /* Not one beside the other: their registers would not do. */                                                 \
        [[dont_unroll]] for (uint s = 1u; 32u * s < limit; ++s)                                                       \
          name##_rotated(IO_TYPE_IN, head_dim, row, begin / 32u + s, high);                                           \
        for (uint i = 0u; i < 8u; ++i) {                                                                              \
          x[i] = low[i];                                                                                              \
          x[i + 8u] = high[i];                                                                                        \
        }                                                                                                             \
      } else {                                                                                                        \
        for (uint i = 0u; i < 16u; ++i) {                                                                             \
          if (4u * i < limit) x[i] = name##_in_load4(IO_TYPE_IN, row + begin + 4u * i);                               \
        }                                                                                                             \
      }                                                                                                               \
      if ((FLAGS & centre) != 0u) {                                                                                   \
        uint mean = means_offset + head * head_dim + begin;                                                           \
        for (uint i = 0u; i < 16u; ++i) {                                                                             \
          if (4u * i < limit) {                                                                                       \
            uint at = mean + 4u * i;                                                                                  \
            precise vec4 centred = x[i] - vec4(means[at], means[at + 1u], means[at + 2u], means[at + 3u]);            \
            x[i] = centred;                                                                                           \
          }                                                                                                           \
        }                                                                                                             \
      }                                                                                                               \
      uvec4 codes[16];                                                                                                \
      uvec2 high;                                                                                                     \
      uint scale;                                                                                                     \
      kv_encode_block(format, x, codes, high, scale);                                                                 \
      uint base16 = (page * params.kv_heads + head) * kv_head_words16(format, head_dim, PAGE_TOKENS);                 \
      name##_store_block(format, head_dim, PAGE_TOKENS, base16, uint(slot) % PAGE_TOKENS, block, codes, high, scale); \
    }                                                                                                                 \
  }

APPEND_SIDE(k, KVANT_ROTATE_K, KVANT_CENTRE_K, FORMAT_K, HEAD_DIM_K, params.slots_offset, params.k_offset, params.k_token_stride,
            params.k_head_stride, 0u)
APPEND_SIDE(v, KVANT_ROTATE_V, KVANT_CENTRE_V, FORMAT_V, HEAD_DIM_V, params.slots_offset + params.v_slots_ahead, params.v_offset,
            params.v_token_stride, params.v_head_stride, params.v_means_offset)

void clear_mass(uint row) {
  int slot = slots[params.slots_offset + row / params.kv_heads * params.slots_stride];
  uint page = uint(slot) / PAGE_TOKENS - params.page_begin;
  if (slot < 0 || page >= params.page_count) return;
  uint word = params.mass_offset + page * params.mass_page_stride +
              (row % params.kv_heads * PAGE_TOKENS + uint(slot) % PAGE_TOKENS) * 2u;
  mass_words[word] = 0u;
  mass_words[word + 1u] = 0u;
}

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  uint rows = params.tokens * params.kv_heads;
  if (gl_WorkGroupID.y == 0u) {
    uint units = rows * kv_blocks(FORMAT_K, HEAD_DIM_K);
    for (uint unit = gl_GlobalInvocationID.x; unit < units; unit += stride) append_k(unit);
    if (params.mass_page_stride != 0u) {
      for (uint row = gl_GlobalInvocationID.x; row < rows; row += stride) clear_mass(row);
    }
  } else {
    uint units = rows * kv_blocks(FORMAT_V, HEAD_DIM_V);
    for (uint unit = gl_GlobalInvocationID.x; unit < units; unit += stride) append_v(unit);
  }
}
