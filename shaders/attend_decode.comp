#version 450
// attend_decode: attention of few queries over paged, quantized keys and values. A workgroup serves one item
// (AttendItem): HEADS_PER_TILE query heads of one KV head, for the item's queries, over its keys; a KV row is read once
// for all of them. Long sequences are split into items, joined by attend_merge.
// Tensors: K, V regions, Q -> OUT and LSE, or PARTIAL (see params/attend.h). Grid: x = items, y = kv_heads * tiles.
// Constants: LOCAL_SIZE, FORMAT_K, FORMAT_V, HEAD_DIM_K, HEAD_DIM_V, PAGE_TOKENS, IO_TYPE_IN, IO_TYPE_OUT, FLAGS,
// HEADS_PER_TILE, QUERIES_PER_ITEM (rows = product, at most 8), SUBGROUP_SIZE, TUNE0 = K_LANES, TUNE1 = V_LANES, TUNE2
// = CHUNK: the most tokens of an item, all in shared memory at once; of attend_decode_sg TUNE3 = TOUCH.
// Numeric contract: dot products, softmax and sums in fp32, in an order fixed by the constants (a result repeats bit
// for bit on one device and config); exp and tanh at the driver's precision. Masked and unmapped keys are selected
// away: their K and V never reach a sum, be they NaN. No visible key: zeros and log-sum-exp -infinity (with sinks: the
// sink's logit).
// USE_FP16: products Q.K in fp16 for formats of fp16 range (relative error about 2^-9 of a span's |Q||K|; keys beyond
// 65504 overflow; f32 and bf16 keys stay fp32). USE_INT_DOT: Q in 8 bits per 32 elements for formats of integer codes
// (error at most half a step, max|Q| / 254, times |K|); other formats as fp32.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#ifdef USE_SUBGROUP
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#ifdef USE_FP16
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#ifdef USE_INT_DOT
#extension GL_EXT_integer_dot_product : require
#endif
#include "attend_main.glsl"

void main() { attend(); }
