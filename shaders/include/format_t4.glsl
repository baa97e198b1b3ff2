// Format t4: x = level[index] * d * 9/1024, 4-bit codes of a tail-biting trellis with 8 states over 32 elements, 32 levels, UE5M3 byte d. docs/formats/t4.md
#ifndef KVANT_FORMAT_T4_GLSL
#define KVANT_FORMAT_T4_GLSL
#include "trellis.glsl"

KV_TRELLIS(t4, 32, 4, 1, KVANT_T4_A, KVANT_T4_B, KVANT_T4_C)

#endif
