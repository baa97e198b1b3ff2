// Types and constants that C++ and GLSL share. Keep to the common subset: structs of uint, int and float, and #define.
#ifndef KVANT_PARAMS_TYPES_H
#define KVANT_PARAMS_TYPES_H

#ifdef __cplusplus
#include <cstdint>
namespace kvant::params {
using uint = std::uint32_t;
#endif

// Element type of a tensor that the engine passes (IO_TYPE_* specialization constants).
#define KVANT_IO_F32 0u
#define KVANT_IO_F16 1u
#define KVANT_IO_BF16 2u

// Specialization constant ids. Every kernel shares this space and declares those that it uses.
#define KVANT_SPEC_LOCAL_SIZE 0      // invocations per workgroup
#define KVANT_SPEC_FORMAT_K 1        // format id of K; convert: of the source
#define KVANT_SPEC_FORMAT_V 2        // format id of V; convert: of the destination
#define KVANT_SPEC_HEAD_DIM_K 3
#define KVANT_SPEC_HEAD_DIM_V 4
#define KVANT_SPEC_PAGE_TOKENS 5     // 16 or 32 in caches; 32, 64 or 128 in ggml's cache tensors
#define KVANT_SPEC_IO_TYPE_IN 6      // K, V or Q as passed by the engine
#define KVANT_SPEC_IO_TYPE_OUT 7     // attention output, read output
#define KVANT_SPEC_FLAGS 8           // KVANT_ATTEND_* features, KVANT_ROTATE_*
#define KVANT_SPEC_HEADS_PER_TILE 9  // query heads of one KV head that a workgroup serves
#define KVANT_SPEC_QUERIES_PER_ITEM 10
#define KVANT_SPEC_KV_PER_ITEM 11    // most tokens of one work item; 0 = no bound (the kernel loops)
#define KVANT_SPEC_SUBGROUP_SIZE 12  // 0 in modules without subgroup operations
#define KVANT_SPEC_TUNE0 13          // the kernel's own tuning constants; see its header
#define KVANT_SPEC_TUNE1 14
#define KVANT_SPEC_TUNE2 15
#define KVANT_SPEC_TUNE3 16
#define KVANT_SPEC_COUNT 17

// Bits of KVANT_SPEC_FLAGS beside those of attend.h. The pages of K or V hold rotated rows (docs/rotation.md), which append makes and read takes back; one side's kernels look at ROTATE_K.
// Attention rotates Q. Of V, attend_merge takes the output back: then no item is final unless it has no keys.
#define KVANT_ROTATE_K 256u
#define KVANT_ROTATE_V 512u
// From what is stored of K or V a mean per KV head and element was subtracted (docs/centring.md): f32 [kv_head][head_dim], of rotated rows where
// rows are rotated. append subtracts it, read adds it back; attention adds q . mean to each dot product, attend_merge the mean to the output.
#define KVANT_CENTRE_K 1024u
#define KVANT_CENTRE_V 2048u

#ifdef __cplusplus
}  // namespace kvant::params
#endif
#endif
