// rope: turns pairs of elements of an engine's rows by position times frequency, from one tensor to another or in place.
//
// Tensors    SOURCE and DESTINATION [batch][token][row][element] of FORMAT_K with strides in bytes, positions, frequencies, factors;
//            RopeParams in params/strided.h. A binding holds whole words.
// Constants  FORMAT_K (f32, f16, bf16); UNIT 1 or 2 pairs; FACTORS 0 or 1.
// Grid       params::rope_grid: x one invocation per unit of a token, either pairs or two copied elements, for all rows that y leaves it.
// Contract   An angle is exact to 2^-31 of a turn at any position, since turns are counted in fixed point; its cosine and sine have an
//            error of at most 2^-22, on every driver. fp32, rounded to nearest even for f16 and bf16; copied elements are bits. A factor
//            is normal. Halves of words whose other half is no neighbour of the unit are put in place by atomics. In place, SOURCE and
//            DESTINATION have the same layout and `rest` is 0; else they do not overlap. No barrier, no subgroup operation.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/strided.h"
#include "numeric.glsl"
#include "canonical.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 0u;
layout(constant_id = KVANT_SPEC_ROPE_UNIT) const uint UNIT = 1u;
layout(constant_id = KVANT_SPEC_ROPE_FACTORS) const uint FACTORS = 0u;

layout(push_constant) uniform Push { RopeParams params; };
layout(std430, binding = 0) readonly buffer Source { uint source_words[]; };
layout(std430, binding = 1) buffer Destination { uint destination_words[]; };
layout(std430, binding = 2) readonly buffer Positions { uint positions[]; };
layout(std430, binding = 3) readonly buffer Frequencies { uint frequencies[]; };
layout(std430, binding = 4) readonly buffer Factors { uint factors[]; };

CANONICAL_INPUT(source, source_words)
CANONICAL_OUTPUT(destination, destination_words)

const uint ELEMENT_BYTES = FORMAT_K == FORMAT_f32 ? 4u : 2u;

uint load_element(uint at) { return ELEMENT_BYTES == 4u ? source_word(at) : source_half(at); }

vec4 decode_elements(uvec4 bits) {
  if (FORMAT_K == FORMAT_f16) return f16_to_f32(bits);
  return FORMAT_K == FORMAT_bf16 ? bf16_to_f32(bits) : uintBitsToFloat(bits);
}

uvec4 encode_elements(vec4 x) {
  if (FORMAT_K == FORMAT_f16) return f32_to_f16(x);
  return FORMAT_K == FORMAT_bf16 ? f32_to_bf16(x) : floatBitsToUint(x);
}

void store_element(uint at, uint bits) {
  if (ELEMENT_BYTES == 4u) destination_store_word(at, bits);
  else destination_store_half(at, bits);
}

// Two neighbours. Where they fill a word nobody else writes it.
void store_neighbours(uint at, uvec2 bits) {
  if (ELEMENT_BYTES == 2u && (at & 2u) == 0u) {
    destination_words[at >> 2] = bits.x | (bits.y << 16);
  } else {
    store_element(at, bits.x);
    store_element(at + ELEMENT_BYTES, bits.y);
  }
}

// words[2] . words[1] words[0] / |factor|, the fraction alone: a division by the 24 bits of the mantissa, byte by byte, and a shift.
uvec2 divided(uvec3 words, uint factor) {
  uint mantissa = (factor & 0x007FFFFFu) | 0x00800000u;
  uint exponent = (factor >> 23) & 0xFFu;
  uvec3 quotient = uvec3(0u);  // in units of 2^-88
  uint rest = 0u;
  for (uint i = 0u; i < 15u; ++i) {
    uint word = i < 4u ? words.z : i < 8u ? words.y : i < 12u ? words.x : 0u;
    rest = (rest << 8) | ((word >> (24u - 8u * (i & 3u))) & 0xFFu);
    uint digit = rest / mantissa;
    rest -= digit * mantissa;
    quotient = (quotient << 8) | uvec3(digit, quotient.x >> 24, quotient.y >> 24);
  }
  // The mantissa stands for factor * 2^(150 - exponent): units of 2^-64 are reached by a shift of exponent - 126 to the right.
  if (exponent >= 126u) {
    uint shift = min(exponent - 126u, 95u);
    for (; shift >= 32u; shift -= 32u) quotient = uvec3(quotient.yz, 0u);
    if (shift > 0u) quotient.xy = (quotient.xy >> shift) | (quotient.yz << (32u - shift));
  } else {
    uint shift = min(126u - exponent, 63u);
    if (shift >= 32u) quotient = uvec3(0u, quotient.xy);
    shift &= 31u;
    if (shift > 0u) quotient.xy = (quotient.xy << shift) | uvec2(0u, quotient.x >> (32u - shift));
  }
  return quotient.xy;
}

// The angle in units of 2^-32 of a turn: the upper half of 64 bits of fraction, times the position.
uint angle_of(uint pair, uint token) {
  uint at = params.frequencies_offset + 4u * pair;
  uvec2 fraction = uvec2(frequencies[at], frequencies[at + 1u]);
  uint position = positions[params.positions_offset + frequencies[at + 3u] * params.positions_stride + token];
  if (FACTORS != 0u) {
    uint factor = factors[params.factors_offset + pair];
    fraction = divided(uvec3(fraction, frequencies[at + 2u]), factor);
    if ((factor >> 31) != 0u) position = 0u - position;
  }
  uint high, low;
  umulExtended(fraction.x, position, high, low);
  return fraction.y * position + high - (int(position) < 0 ? fraction.x : 0u);
}

// Cosine and sine by polynomials on an eighth of a turn to either side of a quarter.
vec2 cosine_sine(uint angle) {
  uint quarter = (angle + 0x20000000u) >> 30;
  precise float x = float(int(angle - (quarter << 30))) * 1.4629180792671596e-9;  // 2 pi / 2^32
  precise float z = x * x;
  precise float sine = x + x * z * (-0.16666654611 + z * (0.0083321608736 + z * -0.00019515295891));
  precise float cosine =
      1.0 - 0.5 * z + z * z * (0.04166664568298827 + z * (-0.001388731625493765 + z * 0.00002443315711809948));
  vec2 turned = (quarter & 1u) == 0u ? vec2(cosine, sine) : vec2(-sine, cosine);
  return (quarter & 2u) == 0u ? turned : -turned;
}

// What stays the same from row to row: where the token's rows begin.
struct Place {
  uint source, destination;
};

void turn_pairs(uint part, uint token, Place at) {
  uint pair = part * UNIT;
  vec2 turn0 = cosine_sine(angle_of(pair, token)) * params.scale;
  vec2 turn1 = UNIT == 2u ? cosine_sine(angle_of(pair + 1u, token)) * params.scale : vec2(1.0, 0.0);
  bool adjacent = params.distance == 1u;
  uint one = (params.first + (adjacent ? 2u * pair : pair)) * ELEMENT_BYTES;
  uint other = one + params.distance * ELEMENT_BYTES;
  for (uint row = gl_WorkGroupID.y; row < params.rows; row += gl_NumWorkGroups.y) {
    uint from = at.source + row * params.src_nb1;
    uint to = at.destination + row * params.dst_nb1;
    uvec4 bits = uvec4(load_element(from + one), 0u, load_element(from + other), 0u);
    if (UNIT == 2u) bits.yw = uvec2(load_element(from + one + ELEMENT_BYTES), load_element(from + other + ELEMENT_BYTES));
    vec4 x = decode_elements(bits);
    precise vec4 turned = vec4(x.x * turn0.x - x.z * turn0.y, x.y * turn1.x - x.w * turn1.y,
                               x.x * turn0.y + x.z * turn0.x, x.y * turn1.y + x.w * turn1.x);
    bits = encode_elements(turned);
    if (UNIT == 2u) {
      store_neighbours(to + one, bits.xy);
      store_neighbours(to + other, bits.zw);
    } else if (adjacent) {
      store_neighbours(to + one, bits.xz);
    } else {
      store_element(to + one, bits.x);
      store_element(to + other, bits.z);
    }
  }
}

void copy_rest(uint part, Place at) {
  uint i = 2u * part;
  uint one = i < params.first ? i : i + 2u * params.pairs;
  uint other = i + 1u < params.first ? i + 1u : i + 1u + 2u * params.pairs;
  for (uint row = gl_WorkGroupID.y; row < params.rows; row += gl_NumWorkGroups.y) {
    uint from = at.source + row * params.src_nb1;
    uint to = at.destination + row * params.dst_nb1;
    uint bits = load_element(from + one * ELEMENT_BYTES);
    if (i + 1u == params.rest) {
      store_element(to + one * ELEMENT_BYTES, bits);
    } else {
      uint other_bits = load_element(from + other * ELEMENT_BYTES);
      if (other == one + 1u) {
        store_neighbours(to + one * ELEMENT_BYTES, uvec2(bits, other_bits));
      } else {
        store_element(to + one * ELEMENT_BYTES, bits);
        store_element(to + other * ELEMENT_BYTES, other_bits);
      }
    }
  }
}

void main() {
  uint turning = params.pairs / UNIT;
  uint parts = turning + (params.rest + 1u) / 2u;
  uint units = parts * params.tokens * params.batches;
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  for (uint unit = gl_GlobalInvocationID.x; unit < units; unit += stride) {
    uint part = unit % parts;
    uint token = unit / parts % params.tokens;
    uint batch = unit / parts / params.tokens;
    Place at = Place(params.src_offset + token * params.src_nb2 + batch * params.src_nb3,
                     params.dst_offset + token * params.dst_nb2 + batch * params.dst_nb3);
    if (part < turning) turn_pairs(part, token, at);
    else copy_rest(part - turning, at);
  }
}
