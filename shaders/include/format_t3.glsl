// Format t3: t4 with 3-bit codes and 16 levels. docs/formats/t3.md
#ifndef KVANT_FORMAT_T3_GLSL
#define KVANT_FORMAT_T3_GLSL
#include "trellis.glsl"

KV_TRELLIS(t3, 16, 2, 1, KVANT_T3_A, KVANT_T3_B, KVANT_T3_C)

#endif
