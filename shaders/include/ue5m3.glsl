// Scale bytes UE5M3: unsigned floats of 5 exponent and 3 mantissa bits, that is bits 14..7 of an f16.
#ifndef KVANT_UE5M3_GLSL
#define KVANT_UE5M3_GLSL
#include "numeric.glsl"

const uint UE5M3_MAX = 0xF7u;  // 61440; above it f16's exponent is that of infinity
const uint UE5M3_NAN = 0xFFu;

float ue5m3_to_f32(uint code) { return f16_to_f32(code << 7); }

// The greatest code whose value is not above the magnitude.
uint ue5m3_floor(uint magnitude) {
  uint subnormal = ((magnitude & 0x007FFFFFu) | 0x00800000u) >> min(133u - min(magnitude >> 23, 112u), 31u);
  return magnitude >= 0x38800000u ? min((magnitude - 0x38000000u) >> 20, UE5M3_MAX) : subnormal;
}

#endif
