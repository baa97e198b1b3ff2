// Format t5: t4 with 5-bit codes and 64 levels. docs/formats/t5.md
#ifndef KVANT_FORMAT_T5_GLSL
#define KVANT_FORMAT_T5_GLSL
#include "trellis.glsl"

KV_TRELLIS(t5, 64, 4, 1, KVANT_T5_A, KVANT_T5_B, KVANT_T5_C)

#endif
