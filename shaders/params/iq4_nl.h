// The 16 levels of ggml's IQ4_NL (ggml-common.h, kvalues_iq4nl) and the 15 midpoints between neighbours. Shared by C++ and GLSL as
// initializer lists.
#ifndef KVANT_PARAMS_IQ4_NL_H
#define KVANT_PARAMS_IQ4_NL_H

#define KVANT_IQ4_NL_LEVELS \
  -127.0f, -104.0f, -83.0f, -65.0f, -49.0f, -35.0f, -22.0f, -10.0f, 1.0f, 13.0f, 25.0f, 38.0f, 53.0f, 69.0f, 89.0f, 113.0f

// Code c is chosen where midpoint[c - 1] <= x / d < midpoint[c].
#define KVANT_IQ4_NL_MIDPOINTS \
  -115.5f, -93.5f, -74.0f, -57.0f, -42.0f, -28.5f, -16.0f, -4.5f, 7.0f, 19.0f, 31.5f, 45.5f, 61.0f, 79.0f, 101.0f

#define KVANT_IQ4_NL_ZERO 8u  // the code of 0.0, level 1: no level is zero

#endif
