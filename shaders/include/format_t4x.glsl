// Format t4x: t4 with two trellises of 32 elements under one scale byte. docs/formats/t4x.md
#ifndef KVANT_FORMAT_T4X_GLSL
#define KVANT_FORMAT_T4X_GLSL
#include "trellis.glsl"

KV_TRELLIS(t4x, 32, 4, 2, KVANT_T4_A, KVANT_T4_B, KVANT_T4_C)

#endif
