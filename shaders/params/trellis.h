// Levels of the trellis formats in units of 9/1024 of the scale, whole numbers up to 127, as polynomials: the level with index i of n is the whole
// number nearest to m * (A + m * m * (B + m * m * C)), m = i - (n - 1) / 2; none is nearer than 0.04 to the middle of two whole numbers, so that no
// rounding on the way matters. docs/formats/t4.md says where they come from. Shared by C++ and GLSL.
#ifndef KVANT_PARAMS_TRELLIS_H
#define KVANT_PARAMS_TRELLIS_H

#define KVANT_TRELLIS_UNIT (9.0f / 1024.0f)
// What paths cost that begin in another state than the one being tried; real costs are far below.
#define KVANT_TRELLIS_FORBIDDEN 1e38f

// Beyond it all scales saturate, and squares could overflow.
#define KVANT_TRELLIS_MOST 131072.0f

#define KVANT_T5_A 2.375f
#define KVANT_T5_B (25.0f / 16384.0f)
#define KVANT_T5_C (29.0f / 268435456.0f)

#define KVANT_T4_A 4.75f
#define KVANT_T4_B (31.0f / 8192.0f)
#define KVANT_T4_C (19.0f / 524288.0f)

#define KVANT_T3_A 10.5f
#define KVANT_T3_B (31.0f / 2048.0f)
#define KVANT_T3_C (3.0f / 2048.0f)

#define KVANT_T2_A 19.75f
#define KVANT_T2_B (-3.0f / 128.0f)
#define KVANT_T2_C (31.0f / 512.0f)

#endif
