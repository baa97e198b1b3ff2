// transfer: elements of one of the engine's tensors to another, in canonical bytes and with strides in bytes, from any of f32, f16,
// bf16 and ggml's blocks of 32 to any other; rows of one side may be looked up by indices.
//
// Tensors    SOURCE of FORMAT_K, DESTINATION of FORMAT_V, indices; TransferParams in params/strided.h. A binding holds whole words.
// Constants  FORMAT_K, FORMAT_V; UNIT 32 where a side is in blocks, else 1 or 2; INDEX 0, 1 or 2 words.
// Grid       params::transfer_grid: one invocation per unit, no loop. At most params::kMaxUnits units and 2^32 - 1 elements.
// Contract   The same format on both sides moves bits. Another one: as host decode and host encode, f16 and bf16 rounded to nearest
//            even. Rows whose index is negative or of no row that is bound are left out. Halves of words are put in place by atomics, so that
//            neighbours may be written at once, and bytes between elements stay. Destination elements must not overlap, and none of
//            them may be a source element of the same dispatch. No barrier, no subgroup operation.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/strided.h"
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 0u;
layout(constant_id = KVANT_SPEC_FORMAT_V) const uint FORMAT_V = 0u;
#define FORMATS_IN_USE (1u << FORMAT_K | 1u << FORMAT_V)
#include "numeric.glsl"
#include "canonical.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_TRANSFER_UNIT) const uint UNIT = 32u;
layout(constant_id = KVANT_SPEC_TRANSFER_INDEX) const uint INDEX = 0u;

layout(push_constant) uniform Push { TransferParams params; };
layout(std430, binding = 0) readonly buffer Source { uint source_words[]; };
layout(std430, binding = 1) buffer Destination { uint destination_words[]; };
layout(std430, binding = 2) readonly buffer Indices { uint indices[]; };

CANONICAL_INPUT(source, source_words)
CANONICAL_OUTPUT(destination, destination_words)

bool in_blocks(uint format) { return kv_scale_bytes(format) != 0u; }

// An element of a side: its coordinates and its first byte. `present` is false where its row is left out.
struct Place {
  uvec4 i;
  uint at;
  bool present;
};

// Row i.y of dimension 1, or that which the index says.
uint looked_up(uvec4 i, uint side, out bool present) {
  present = true;
  uint row = i.y;
  if (INDEX != 0u && params.indexed == side) {
    row = indices[params.idx_offset + i.y * params.idx_nb0 + i.z % params.idx_ne1 * params.idx_nb1 +
                  i.w % params.idx_ne2 * params.idx_nb2];
    row -= params.first_row;
    present = row < params.rows;  // negative indices are large ones
  }
  return row;
}

uvec4 coordinates(uint element, uint ne0, uint ne1, uint ne2) {
  uint row = element / ne0;
  uint plane = row / ne1;
  return uvec4(element % ne0, row % ne1, plane % ne2, plane / ne2);
}

#define TRANSFER_SIDE(name, side, format)                                                                             \
  void name##_locate(inout Place p) {                                                                                 \
    uint row = looked_up(p.i, side, p.present);                                                                       \
    p.at = params.name##_offset + (in_blocks(format) ? p.i.x / 32u : p.i.x) * params.name##_nb0 +                     \
           row * params.name##_nb1 + p.i.z * params.name##_nb2 + p.i.w * params.name##_nb3;                           \
  }                                                                                                                   \
  Place name##_place(uint element) {                                                                                  \
    Place p;                                                                                                          \
    p.i = coordinates(element, params.name##_ne0, params.name##_ne1, params.name##_ne2);                              \
    name##_locate(p);                                                                                                 \
    return p;                                                                                                         \
  }                                                                                                                   \
  /* The next element. Units of 32 do not leave a row that is looked up, since the other side is in blocks. */        \
  void name##_advance(inout Place p) {                                                                                \
    p.at += params.name##_nb0;                                                                                        \
    ++p.i.x;                                                                                                          \
    if (p.i.x == params.name##_ne0) {                                                                                 \
      p.i.x = 0u;                                                                                                     \
      ++p.i.y;                                                                                                        \
      if (p.i.y == params.name##_ne1) {                                                                               \
        p.i.y = 0u;                                                                                                   \
        ++p.i.z;                                                                                                      \
        if (p.i.z == params.name##_ne2) {                                                                             \
          p.i.z = 0u;                                                                                                 \
          ++p.i.w;                                                                                                    \
        }                                                                                                             \
      }                                                                                                               \
      if (INDEX != 0u && UNIT < 32u) {                                                                                \
        name##_locate(p);                                                                                             \
      } else {                                                                                                        \
        p.at = params.name##_offset + p.i.y * params.name##_nb1 + p.i.z * params.name##_nb2 +                         \
               p.i.w * params.name##_nb3;                                                                             \
      }                                                                                                               \
    }                                                                                                                 \
  }

TRANSFER_SIDE(dst, 0u, FORMAT_V)
TRANSFER_SIDE(src, 1u, FORMAT_K)

uint load_element(uint at) { return kv_code_bits(FORMAT_K) == 32u ? source_word(at) : source_half(at); }

// Elements as their bits.
vec4 decode_elements(uvec4 bits) {
  if (FORMAT_K == FORMAT_f16) return f16_to_f32(bits);
  return FORMAT_K == FORMAT_bf16 ? bf16_to_f32(bits) : uintBitsToFloat(bits);
}

uvec4 encode_elements(vec4 x) {
  if (FORMAT_V == FORMAT_f16) return f32_to_f16(x);
  return FORMAT_V == FORMAT_bf16 ? f32_to_bf16(x) : floatBitsToUint(x);
}

// One element at `p`, or two there and behind it, of which `wanted` ones are stored; units of 32 go on behind these. Where the two fill
// a word nobody else writes it.
void store_elements(inout Place p, uvec2 bits, bvec2 wanted) {
  uint first = p.at;
  bool one = wanted.x && p.present;
  if (UNIT > 1u) dst_advance(p);
  bool two = UNIT > 1u && wanted.y && p.present;
  if (kv_code_bits(FORMAT_V) == 32u) {
    if (one) destination_store_word(first, bits.x);
    if (two) destination_store_word(p.at, bits.y);
  } else if (one && two && (first & 2u) == 0u && p.at == first + 2u) {
    destination_words[first >> 2] = bits.x | (bits.y << 16);
  } else {
    if (one) destination_store_half(first, bits.x);
    if (two) destination_store_half(p.at, bits.y);
  }
  if (UNIT == 32u) dst_advance(p);
}

void elements_to_elements(uint element) {
  Place from = src_place(element);
  Place to = dst_place(element);
  uvec4 bits = uvec4(0u);
  bvec2 wanted = bvec2(from.present, false);
  if (wanted.x) bits.x = load_element(from.at);
  if (UNIT > 1u) {
    src_advance(from);
    wanted.y = from.present;
    if (wanted.y) bits.y = load_element(from.at);
  }
  if (FORMAT_K != FORMAT_V) bits = encode_elements(decode_elements(bits));
  store_elements(to, bits.xy, wanted);
}

void elements_to_block(uint element) {
  Place to = dst_place(element);
  Place from = src_place(element);
  if (!to.present || !from.present) return;
  vec4 x[16];
  for (int i = 0; i < 16; ++i) x[i] = vec4(0.0);
  for (int i = 0; i < 8; ++i) {
    uvec4 bits;
    for (int j = 0; j < 4; ++j) {
      bits[j] = load_element(from.at);
      src_advance(from);
    }
    x[i] = decode_elements(bits);
  }
  uvec4 codes[16];
  uvec2 high;
  uint scale;
  kv_encode_block(FORMAT_V, x, codes, high, scale);
  uint body[8];
  canonical_pack(FORMAT_V, codes[0], codes[1], high.x, body);
  destination_store_block(FORMAT_V, to.at, body, scale);
}

void block_to_any(uint element) {
  Place from = src_place(element);
  Place to = dst_place(element);
  if (!to.present || !from.present) return;
  uint body[8];
  uint scale;
  source_load_block(FORMAT_K, from.at, body, scale);
  if (FORMAT_K == FORMAT_V) {
    destination_store_block(FORMAT_V, to.at, body, scale);
  } else {
    uvec4 codes[8];
    uint high;
    canonical_unpack(FORMAT_K, body, codes, high);
    vec4 x[8];
    kv_decode_span(FORMAT_K, codes, high, scale, x);
    if (in_blocks(FORMAT_V)) {
      vec4 y[16];
      for (int i = 0; i < 16; ++i) y[i] = i < 8 ? x[i] : vec4(0.0);
      uvec4 new_codes[16];
      uvec2 new_high;
      kv_encode_block(FORMAT_V, y, new_codes, new_high, scale);
      canonical_pack(FORMAT_V, new_codes[0], new_codes[1], new_high.x, body);
      destination_store_block(FORMAT_V, to.at, body, scale);
    } else {
      for (int i = 0; i < 8; ++i) {
        uvec4 bits = encode_elements(x[i]);
        store_elements(to, bits.xy, bvec2(true));
        store_elements(to, bits.zw, bvec2(true));
      }
    }
  }
}

void main() {
  uint unit = gl_GlobalInvocationID.x + gl_WorkGroupID.y * (65535u * gl_WorkGroupSize.x);
  if (unit >= params.units) return;
  uint element = unit * UNIT;
  if (in_blocks(FORMAT_K)) {
    block_to_any(element);
  } else if (in_blocks(FORMAT_V)) {
    elements_to_block(element);
  } else {
    elements_to_elements(element);
  }
}
