// Format t2: x = level[index] * d * 9/1024, 2-bit codes of a tail-biting trellis with 8 states over 32 elements, 8 levels, UE5M3 byte d:
// the the greatest that is not above the absolute maximum or the one below, whichever errs less. docs/formats/t2.md
#ifndef KVANT_FORMAT_T2_GLSL
#define KVANT_FORMAT_T2_GLSL
#include "trellis.glsl"

KV_TRELLIS(t2, 8, 2, 1, KVANT_T2_A, KVANT_T2_B, KVANT_T2_C)

#endif
