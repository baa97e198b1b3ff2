// Format t3: x = level[index] * d * 9/1024, 3-bit codes of a tail-biting trellis with 8 states over 32 elements, 16 levels, UE5M3 byte d:
// the the greatest that is not above the absolute maximum or the one below, whichever errs less. docs/formats/t3.md
#ifndef KVANT_FORMAT_T3_GLSL
#define KVANT_FORMAT_T3_GLSL
#include "trellis.glsl"

KV_TRELLIS(t3, 16, 2, 1, KVANT_T3_A, KVANT_T3_B, KVANT_T3_C)

#endif
