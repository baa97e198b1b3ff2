// hadamard: rows of an engine's tensor times the Hadamard matrix of their length, scaled: a fast transform.
//
// Tensors    SOURCE of FORMAT_K, DESTINATION of f32, with strides in bytes; HadamardParams in params/strided.h. They do not overlap. A
//            binding holds whole words.
// Constants  FORMAT_K (f32, f16); HEAD_DIM_K = N, a power of two up to 512; LOCAL_SIZE a power of two, at least N / 8.
// Grid       params::hadamard_grid: a workgroup takes the elements of 8 * LOCAL_SIZE / N rows, eight an invocation.
// Contract   fp32 sums and differences, lowest distances last, then one product. N up to 8: no barrier; up to 64: one; up to 512: two.
//            No barrier in a loop, no subgroup operation.
//
// Three steps of the transform join elements whose numbers differ in three neighbouring bits. An invocation that holds the eight
// elements with all values of these bits takes the three steps in registers; then the workgroup changes hands for the next lower bits.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "params/strided.h"
#include "numeric.glsl"
#include "canonical.glsl"

layout(local_size_x_id = KVANT_SPEC_LOCAL_SIZE) in;
layout(constant_id = KVANT_SPEC_LOCAL_SIZE) const uint LOCAL_SIZE = 64u;
layout(constant_id = KVANT_SPEC_FORMAT_K) const uint FORMAT_K = 0u;
layout(constant_id = KVANT_SPEC_HEAD_DIM_K) const uint N = 64u;

layout(push_constant) uniform Push { HadamardParams params; };
layout(std430, binding = 0) readonly buffer Source { uint source_words[]; };
layout(std430, binding = 1) writeonly buffer Destination { float destination[]; };

shared float tile[8u * LOCAL_SIZE];

CANONICAL_INPUT(source, source_words)

// The element of this tile that is j-th in an invocation's hands: bits shift .. shift + 2 are those of j.
uint element_of(uint lane, uint shift, uint j) {
  return ((lane >> shift) << (shift + 3u)) | (j << shift) | (lane & ((1u << shift) - 1u));
}

// The first byte of a row.
uint row_place(uint row, uint offset, uvec3 nb) {
  uint plane = row / params.ne1;
  return offset + row % params.ne1 * nb.x + plane % params.ne2 * nb.y + plane / params.ne2 * nb.z;
}

float load(uint element) {
  uint at = row_place(element / N, params.src_offset, uvec3(params.src_nb1, params.src_nb2, params.src_nb3));
  if (FORMAT_K == FORMAT_f16) return f16_to_f32(source_half(at + element % N * 2u));
  return uintBitsToFloat(source_word(at + element % N * 4u));
}

void store(uint element, float sum) {
  uint at = row_place(element / N, params.dst_offset, uvec3(params.dst_nb1, params.dst_nb2, params.dst_nb3));
  precise float scaled = sum * params.scale;
  destination[(at >> 2) + element % N] = scaled;
}

// The steps of bits shift .. shift + 2 that lie below bit `end`.
void steps(uint shift, uint end, inout vec4 low, inout vec4 high) {
  if (shift + 2u < end) {
    vec4 sum = low + high;
    high = low - high;
    low = sum;
  }
  if (shift + 1u < end) {
    low = vec4(low.xy + low.zw, low.xy - low.zw);
    high = vec4(high.xy + high.zw, high.xy - high.zw);
  }
  if (shift < end) {
    low = vec4(low.x + low.y, low.x - low.y, low.z + low.w, low.z - low.w);
    high = vec4(high.x + high.y, high.x - high.y, high.z + high.w, high.z - high.w);
  }
}

// Puts an invocation's elements down where it alone took or takes them from, and takes those of another shift.
void change_hands(uint lane, uint from, uint to, inout vec4 low, inout vec4 high) {
  for (uint j = 0u; j < 4u; ++j) {
    tile[element_of(lane, from, j)] = low[j];
    tile[element_of(lane, from, j + 4u)] = high[j];
  }
  barrier();
  for (uint j = 0u; j < 4u; ++j) {
    low[j] = tile[element_of(lane, to, j)];
    high[j] = tile[element_of(lane, to, j + 4u)];
  }
}

uint lower(uint shift) { return shift > 3u ? shift - 3u : 0u; }

void main() {
  uint lane = gl_LocalInvocationID.x;
  uint first = (gl_WorkGroupID.x + gl_WorkGroupID.y * 65535u) * (8u * LOCAL_SIZE);
  uint elements = params.rows * N;
  uint end = uint(findMSB(N));
  uint shift = lower(end);
  vec4 low = vec4(0.0);
  vec4 high = vec4(0.0);
  for (uint j = 0u; j < 4u; ++j) {
    uint one = first + element_of(lane, shift, j);
    uint other = first + element_of(lane, shift, j + 4u);
    if (one < elements) low[j] = load(one);
    if (other < elements) high[j] = load(other);
  }
  steps(shift, end, low, high);
  if (N > 8u) {
    end = shift;
    shift = lower(end);
    change_hands(lane, end, shift, low, high);
    steps(shift, end, low, high);
  }
  if (N > 64u) {
    end = shift;
    shift = lower(end);
    change_hands(lane, end, shift, low, high);
    steps(shift, end, low, high);
  }
  for (uint j = 0u; j < 4u; ++j) {
    uint one = first + element_of(lane, 0u, j);
    if (one < elements) store(one, low[j]);
    if (one + 4u < elements) store(one + 4u, high[j]);
  }
}
