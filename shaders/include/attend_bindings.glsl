// Buffers, push constants and specialization constants of the attention kernels attend_decode and attend_prefill, and of score,
// which looks at the same items.
#ifndef KVANT_ATTEND_BINDINGS_GLSL
#define KVANT_ATTEND_BINDINGS_GLSL
#include "params/attend.h"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_LOCAL_SIZE) const uint LOCAL_SIZE = 64u;
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 4u;
layout(constant_id = KVANT_SPEC_FORMAT_V) const uint FORMAT_V = 4u;
#define FORMATS_IN_USE (1u << FORMAT_K | 1u << FORMAT_V)
layout(constant_id = KVANT_SPEC_HEAD_DIM_K) const uint HEAD_DIM_K = 128u;
layout(constant_id = KVANT_SPEC_HEAD_DIM_V) const uint HEAD_DIM_V = 128u;
layout(constant_id = KVANT_SPEC_PAGE_TOKENS) const uint PAGE_TOKENS = 16u;
layout(constant_id = KVANT_SPEC_IO_TYPE_IN) const uint IO_TYPE_IN = 0u;
layout(constant_id = KVANT_SPEC_IO_TYPE_OUT) const uint IO_TYPE_OUT = 0u;
layout(constant_id = KVANT_SPEC_FLAGS) const uint FLAGS = 0u;
layout(constant_id = KVANT_SPEC_HEADS_PER_TILE) const uint HEADS_PER_TILE = 1u;
layout(constant_id = KVANT_SPEC_QUERIES_PER_ITEM) const uint QUERIES_PER_ITEM = 1u;
#ifdef USE_SUBGROUP
layout(constant_id = KVANT_SPEC_SUBGROUP_SIZE) const uint SUBGROUP_SIZE = 4u;
#endif
#ifdef USE_MATRICES
// Rows, columns and depth of a product; each divides 32 or is 32.
layout(constant_id = KVANT_SPEC_TUNE0) const uint MATRIX_M = 16u;
layout(constant_id = KVANT_SPEC_TUNE1) const uint MATRIX_N = 16u;
layout(constant_id = KVANT_SPEC_TUNE3) const uint MATRIX_K = 16u;
#else
// K_LANES: neighbouring lanes that share the K row of a token; a power of two, with subgroup operations at most
// SUBGROUP_SIZE.
layout(constant_id = KVANT_SPEC_TUNE0) const uint K_LANES = 4u;
// V_LANES: lanes that share the V row of a token: one per span of 32 elements, or more.
layout(constant_id = KVANT_SPEC_TUNE1) const uint V_LANES = 4u;
#endif
#ifdef USE_TOUCH
// TOUCH: 1 on CPU drivers, whose workgroup is one vector of lanes (attend_touch.glsl); else 0.
layout(constant_id = KVANT_SPEC_TUNE3) const uint TOUCH = 0u;
#endif
// CHUNK: tokens whose scores are in shared memory at once; a multiple of PAGE_TOKENS.
layout(constant_id = KVANT_SPEC_TUNE2) const uint CHUNK = 256u;

layout(push_constant) uniform Push { AttendParams params; };

// A region has two views, 16-byte words for codes and 32-bit words for scales and high bits; both only read.
layout(std430, set = 0, binding = 0) readonly buffer KRegion16 { uvec4 k_words16[]; };
layout(std430, set = 0, binding = 0) readonly buffer KRegion { uint k_words[]; };
#ifdef KVANT_SCORE
layout(std430, set = 0, binding = 1) buffer Mass { uint mass_words[]; };
layout(std430, set = 0, binding = 7) readonly buffer LogSumExp { float lse_words[]; };
#else
layout(std430, set = 0, binding = 1) readonly buffer VRegion16 { uvec4 v_words16[]; };
layout(std430, set = 0, binding = 1) readonly buffer VRegion { uint v_words[]; };
layout(std430, set = 0, binding = 3) writeonly buffer Output { uint out_words[]; };
layout(std430, set = 0, binding = 5) writeonly buffer Partial { float partial_words[]; };
// KVANT_ATTEND_LSE: written; KVANT_ATTEND_BIAS: read. One declaration, since validation layers know nothing of flags: they
// would take what a dispatch writes to LSE for read by the next one's bias.
layout(std430, set = 0, binding = 7) buffer LogSumExpOrBias { uint lse_or_bias_words[]; };
#endif
layout(std430, set = 0, binding = 2) readonly buffer Queries { uint q_words[]; };
layout(std430, set = 0, binding = 4) readonly buffer Meta { uint meta[]; };
layout(std430, set = 0, binding = 6) readonly buffer Heads { float heads[]; };

// Rows of a workgroup: row = query * HEADS_PER_TILE + head of the tile.
const uint ROWS = HEADS_PER_TILE * QUERIES_PER_ITEM;
#endif
