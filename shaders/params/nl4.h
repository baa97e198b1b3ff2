// The 16 levels of nl4 and the 15 midpoints between neighbours, in units of the scale: multiples of 1/128 and 1/256, exact in f32. Shared by C++
// and GLSL as initializer lists. docs/formats/nl4.md says where they come from.
#ifndef KVANT_PARAMS_NL4_H
#define KVANT_PARAMS_NL4_H

#define KVANT_NL4_LEVELS \
  -125.0f / 128.0f, -99.0f / 128.0f, -78.0f / 128.0f, -61.0f / 128.0f, -46.0f / 128.0f, -32.0f / 128.0f, \
  -19.0f / 128.0f, -6.0f / 128.0f, 6.0f / 128.0f, 19.0f / 128.0f, 32.0f / 128.0f, 46.0f / 128.0f, \
  61.0f / 128.0f, 78.0f / 128.0f, 99.0f / 128.0f, 125.0f / 128.0f

// Code c is chosen where midpoint[c - 1] * scale < x <= midpoint[c] * scale.
#define KVANT_NL4_MIDPOINTS \
  -224.0f / 256.0f, -177.0f / 256.0f, -139.0f / 256.0f, -107.0f / 256.0f, -78.0f / 256.0f, -51.0f / 256.0f, \
  -25.0f / 256.0f, 0.0f, 25.0f / 256.0f, 51.0f / 256.0f, 78.0f / 256.0f, 107.0f / 256.0f, \
  139.0f / 256.0f, 177.0f / 256.0f, 224.0f / 256.0f

// 128 times the level of a code is the whole number nearest to m * (A + m * m * (B + m * m * C)), m = code - 7.5. None is nearer than 0.17 to the
// middle of two whole numbers, so that no rounding on the way matters.
#define KVANT_NL4_POLYNOMIAL_A 12.625f
#define KVANT_NL4_POLYNOMIAL_B 0.03125f
#define KVANT_NL4_POLYNOMIAL_C 0.000732421875f

#define KVANT_NL4_ZERO 8u  // the code of 0.0 in a block of zeros; no level is zero

#endif
