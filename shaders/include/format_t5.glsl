// Format t5: x = level[index] * d * 9/1024, 5-bit codes of a tail-biting trellis with 8 states over 32 elements, 64 levels, UE5M3 byte d:
// the the greatest that is not above the absolute maximum or the one below, whichever errs less. docs/formats/t5.md
#ifndef KVANT_FORMAT_T5_GLSL
#define KVANT_FORMAT_T5_GLSL
#include "trellis.glsl"

KV_TRELLIS(t5, 64, 4, 1, KVANT_T5_A, KVANT_T5_B, KVANT_T5_C)

#endif
