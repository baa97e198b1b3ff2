// Exact arithmetic that GLSL's own operators do not promise: f16, bf16 and f8 conversions in integers, division and
// reciprocal with IEEE rounding. Same bits as host/half.cpp and as a C compiler's f32 division, on every driver.
#ifndef KVANT_NUMERIC_GLSL
#define KVANT_NUMERIC_GLSL

// Blocks whose largest magnitude lies below 2^-100 encode as zeros; from 2^126 on (infinity and NaN too) as one NaN
// scale.
const uint KV_TINY_BITS = 0x0D800000u;
const uint KV_HUGE_BITS = 0x7E800000u;

// value >> shift, rounded to nearest, ties to even; 1 <= shift <= 25, value < 2^31. Selections instead of branches and
// vectors instead of calls keep modules small: some drivers inline every call before they know the format.
uvec4 shift_rounded(uvec4 value, uvec4 shift) {
  return (value + ((uvec4(1u) << (shift - 1u)) - 1u) + ((value >> shift) & 1u)) >> shift;
}

// Codes of magnitudes below the least normal: the mantissa shifted right by shift_base - exponent; top_exponent is the
// greatest exponent that arises.
uvec4 subnormal_rounded(uvec4 magnitude, uint top_exponent, uint shift_base) {
  uvec4 shift = min(shift_base - min(magnitude >> 23, uvec4(top_exponent)), uvec4(25u));
  return shift_rounded((magnitude & 0x007FFFFFu) | 0x00800000u, shift);
}

uvec4 f32_to_f16(vec4 x) {
  uvec4 bits = floatBitsToUint(x);
  uvec4 magnitude = bits & 0x7FFFFFFFu;
  uvec4 normal = shift_rounded(max(magnitude, uvec4(0x38000000u)) - 0x38000000u, uvec4(13u));
  uvec4 h = mix(subnormal_rounded(magnitude, 112u, 126u), normal, greaterThanEqual(magnitude, uvec4(0x38800000u)));
  h = mix(h, uvec4(0x7C00u), greaterThanEqual(magnitude, uvec4(0x477FF000u)));
  h = mix(h, uvec4(0x7E00u), greaterThan(magnitude, uvec4(0x7F800000u)));
  return h | ((bits >> 16) & 0x8000u);
}

// A scale never becomes infinite: it stops at the largest f16.
uint f32_to_f16_saturated(float x) {
  uint h = f32_to_f16(vec4(x)).x;
  return h - uint((h & 0x7FFFu) == 0x7C00u);
}

// Shifts, where masks would do, take no constant that has to be kept in a register.
vec4 f16_to_f32(uvec4 h) {
  uvec4 magnitude = (h << 17) >> 4;  // exponent and mantissa, the latter in its place
  bvec4 special = greaterThanEqual(magnitude, uvec4(0x7C00u << 13));
  uvec4 bits = magnitude + mix(uvec4(0x38000000u), uvec4(0x70000000u), special);
  // A subnormal m * 2^-24 is read as the mantissa of a number in [2^-14, 2^-13); no f32 denormal arises.
  vec4 subnormal = uintBitsToFloat(magnitude + 0x38800000u) - 0.00006103515625;
  bits = mix(bits, floatBitsToUint(subnormal), lessThan(magnitude, uvec4(0x0400u << 13)));
  return uintBitsToFloat(((h >> 15) << 31) | bits);
}

float f16_to_f32(uint h) { return f16_to_f32(uvec4(h)).x; }

uvec4 f32_to_bf16(vec4 x) {
  uvec4 bits = floatBitsToUint(x);
  uvec4 rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return mix(rounded, (bits >> 16) | 0x0040u, greaterThan(bits & 0x7FFFFFFFu, uvec4(0x7F800000u)));
}

vec4 bf16_to_f32(uvec4 h) { return uintBitsToFloat(h << 16); }

uvec4 f32_to_f8_e4m3(vec4 x) {
  uvec4 bits = floatBitsToUint(x);
  uvec4 magnitude = bits & 0x7FFFFFFFu;
  uvec4 normal = shift_rounded(max(magnitude, uvec4(0x3C000000u)) - 0x3C000000u, uvec4(20u));
  uvec4 h = mix(subnormal_rounded(magnitude, 120u, 141u), normal, greaterThanEqual(magnitude, uvec4(0x3C800000u)));
  h = mix(h, uvec4(0x7Eu), greaterThanEqual(magnitude, uvec4(0x43E00000u)));
  return mix(h | ((bits >> 24) & 0x80u), uvec4(0x7Fu), greaterThan(magnitude, uvec4(0x7F800000u)));
}

// Four 16-bit values as two words.
uvec2 pack_halves(uvec4 h) { return h.xz | (h.yw << 16); }
uvec4 unpack_halves(uvec2 words) { return uvec4(words.x & 0xFFFFu, words.x >> 16, words.y & 0xFFFFu, words.y >> 16); }

// a / divisor for a positive normal a and divisor 3 .. 127, correctly rounded. The quotient must be normal.
float divide_exact(float a, uint divisor) {
  uint bits = floatBitsToUint(a);
  uint numerator = ((bits & 0x007FFFFFu) | 0x00800000u) << 8;
  uint quotient = numerator / divisor;
  uint remainder = numerator - quotient * divisor;
  uint shift = uint(findMSB(quotient)) - 23u;
  uint kept = quotient >> shift;
  uint rest = quotient & ((1u << shift) - 1u);
  uint half_unit = 1u << (shift - 1u);
  if (rest > half_unit || (rest == half_unit && (remainder != 0u || (kept & 1u) != 0u))) ++kept;
  uint exponent = (bits >> 23) - 8u + shift;
  return uintBitsToFloat((exponent << 23) + (kept - 0x00800000u));  // kept == 2^24 carries into the exponent
}

// a / b for positive normal a and b, correctly rounded. The quotient must be normal.
float quotient_exact(float a, float b) {
  uint bits_a = floatBitsToUint(a);
  uint bits_b = floatBitsToUint(b);
  uint rest = (bits_a & 0x007FFFFFu) | 0x00800000u;
  uint divisor = (bits_b & 0x007FFFFFu) | 0x00800000u;
  uint below = uint(rest < divisor);  // the quotient of the mantissas is less than one
  rest = (rest << below) - divisor;
  uint quotient = 1u;
  for (int i = 0; i < 24; i += 6) {  // six of the 24 bits behind the first at a time: rest stays below 2^30
    rest <<= 6;
    quotient = (quotient << 6) | (rest / divisor);
    rest %= divisor;
  }
  // 25 bits, the last one for rounding; a tie cannot happen, since the quotient of two mantissas never ends one bit beyond
  // theirs.
  uint kept = (quotient >> 1) + (quotient & 1u);
  uint exponent = (bits_a >> 23) - (bits_b >> 23) + 127u - below;
  return uintBitsToFloat((exponent << 23) + (kept - 0x00800000u));
}

// 1 / d for a normal d, correctly rounded. The result must be normal.
float reciprocal_exact(float d) {
  uint bits = floatBitsToUint(d);
  uint mantissa = (bits & 0x007FFFFFu) | 0x00800000u;
  // The driver's division gives 2^47 / mantissa up to a few units; the remainder, exact in 32 bits, puts it right.
  uint quotient = uint(140737488355328.0 / float(mantissa));
  int remainder = int(0u - quotient * mantissa);
  for (int i = 0; i < 64 && remainder < 0; ++i) {
    --quotient;
    remainder += int(mantissa);
  }
  for (int i = 0; i < 64 && remainder >= int(mantissa); ++i) {
    ++quotient;
    remainder -= int(mantissa);
  }
  if (2 * remainder > int(mantissa)) ++quotient;  // a tie cannot happen
  uint exponent = 253u - ((bits >> 23) & 0xFFu);
  return uintBitsToFloat((bits & 0x80000000u) | ((exponent << 23) + (quotient - 0x00800000u)));
}

// Largest magnitude of four values, as bits: integers order magnitudes exactly, denormals and NaN included.
uint magnitude_bits(vec4 x) {
  uvec4 bits = floatBitsToUint(x) & 0x7FFFFFFFu;
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// Takes x into the running (largest magnitude, value that has it first), as bits.
void signed_largest(vec4 x, inout uint amax, inout uint signed_max) {
  for (int i = 0; i < 4; ++i) {
    uint bits = floatBitsToUint(x[i]);
    uint magnitude = bits & 0x7FFFFFFFu;
    signed_max = mix(signed_max, bits, magnitude > amax);
    amax = max(amax, magnitude);
  }
}

// Denormals as zeros of their sign, so that a driver that flushes them and one that does not agree.
vec4 flush_denormals(vec4 x) {
  uvec4 bits = floatBitsToUint(x);
  return uintBitsToFloat(mix(bits, bits & 0x80000000u, equal(bits & 0x7F800000u, uvec4(0u))));
}

// Largest magnitude, least and greatest value of 32 elements; of equal values (0 and -0 are equal) the first counts.
void block_range(vec4 x[16], out uint amax, out float low, out float high) {
  amax = 0u;
  int low_key = 0x7FFFFFFF;
  int high_key = -0x7FFFFFFF;
  uint low_bits = 0u;
  uint high_bits = 0u;
  for (int i = 0; i < 8; ++i) {
    uvec4 bits = floatBitsToUint(flush_denormals(x[i]));
    uvec4 magnitude = bits & 0x7FFFFFFFu;
    ivec4 keys = mix(ivec4(magnitude), -ivec4(magnitude), notEqual(bits & 0x80000000u, uvec4(0u)));
    for (int j = 0; j < 4; ++j) {
      amax = max(amax, magnitude[j]);
      low_bits = mix(low_bits, bits[j], keys[j] < low_key);
      low_key = min(low_key, keys[j]);
      high_bits = mix(high_bits, bits[j], keys[j] > high_key);
      high_key = max(high_key, keys[j]);
    }
  }
  low = uintBitsToFloat(low_bits);
  high = uintBitsToFloat(high_bits);
}

#endif
