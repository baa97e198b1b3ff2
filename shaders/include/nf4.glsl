// What formats nf4 and nf4_dq share: the 16 levels, and the search for the better of two scales.
#ifndef KVANT_NF4_GLSL
#define KVANT_NF4_GLSL
#include "levels16.glsl"
#include "levels16_search.glsl"
#include "params/nf4.h"

const float NF4_LEVELS[16] = float[16](KVANT_NF4_LEVELS);
const float NF4_MIDPOINTS[15] = float[15](KVANT_NF4_MIDPOINTS);
const uint NF4_ZERO_WORD = KVANT_NF4_ZERO * 0x11111111u;

KV_LEVELS16(nf4, NF4_LEVELS)
KV_LEVELS16_SEARCH(nf4, NF4_LEVELS, NF4_MIDPOINTS, NF4_ZERO_WORD, 16)

#endif
