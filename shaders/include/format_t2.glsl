// Format t2: t4 with 2-bit codes and 8 levels. docs/formats/t2.md
#ifndef KVANT_FORMAT_T2_GLSL
#define KVANT_FORMAT_T2_GLSL
#include "trellis.glsl"

KV_TRELLIS(t2, 8, 2, 1, KVANT_T2_A, KVANT_T2_B, KVANT_T2_C)

#endif
