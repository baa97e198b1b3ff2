// Encoding of trellis-coded blocks: Viterbi's algorithm over 8 states, one invocation a block. docs/formats/t4.md says what is searched.
// Loops over levels must be unrolled: llvmpipe ends an invocation's loops after 65535 iterations of all of them together, and an invocation may
// encode hundreds of blocks.
#ifndef KVANT_TRELLIS_ENCODE_GLSL
#define KVANT_TRELLIS_ENCODE_GLSL
#include "numeric.glsl"
#include "trellis_levels.glsl"
#include "ue5m3.glsl"

// The bits u of a block, turned so that bit t holds u of element t - 1, 2 or 3.
uint trellis_before(uint path, uint distance) { return (path << distance) | (path >> (32u - distance)); }

// One step: costs of the eight states (low, high), of an element's four classes of levels. Returns which predecessors won, a bit for each state.
uint trellis_step(inout vec4 low, inout vec4 high, vec4 d) {
  precise vec4 low0 = low.xxyy + d.xzzx;
  precise vec4 low1 = high.xxyy + d.zxxz;
  precise vec4 high0 = low.zzww + d.ywwy;
  precise vec4 high1 = high.zzww + d.wyyw;
  bvec4 low_second = lessThan(low1, low0);
  bvec4 high_second = lessThan(high1, high0);
  low = mix(low0, low1, low_second);
  high = mix(high0, high1, high_second);
  uvec4 bits = mix(uvec4(0u), uvec4(1u, 2u, 4u, 8u), low_second) | mix(uvec4(0u), uvec4(16u, 32u, 64u, 128u), high_second);
  return bits.x | bits.y | bits.z | bits.w;
}

// Costs of four states before the first element: all alike, or one state alone may be there.
vec4 trellis_start(bool free, uint state, uvec4 states) {
  return mix(vec4(free ? 0.0 : KVANT_TRELLIS_FORBIDDEN), vec4(0.0), equal(uvec4(state), states));
}

float trellis_least(vec4 low, vec4 high) {
  vec4 four = min(low, high);
  return min(min(four.x, four.y), min(four.z, four.w));
}

float trellis_end(vec4 low, vec4 high, uint state) {
  vec4 four = (state & 4u) == 0u ? low : high;
  vec2 two = (state & 2u) == 0u ? four.xy : four.zw;
  return (state & 1u) == 0u ? two.x : two.y;
}

// Four more codes at the end of a row of nibbles or pairs, whose first ones fall out: after 32 of them the row is whole.
uvec4 trellis_append(uint format, uvec4 row, uvec4 code) {
  uvec4 low = code & ((1u << kv_code_bits(format)) - 1u);
  uvec4 nibbles = low << uvec4(0u, 4u, 8u, 12u);
  uvec4 pairs = low << uvec4(0u, 2u, 4u, 6u);
  uvec4 by_nibbles = (row >> 16) | (uvec4(row.yzw, nibbles.x | nibbles.y | nibbles.z | nibbles.w) << 16);
  uvec2 by_pairs = (row.xy >> 8) | (uvec2(row.y, pairs.x | pairs.y | pairs.z | pairs.w) << 24);
  return kv_code_bits(format) == 4u ? by_nibbles : uvec4(by_pairs, 0u, 0u);
}

// Turn an array of eight by one place; `type` is that of its elements.
#define KV_TURN_LEFT(type, a) a = type[8](a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[0]);
#define KV_TURN_RIGHT(type, a) a = type[8](a[7], a[0], a[1], a[2], a[3], a[4], a[5], a[6]);

// Squared distances from y to the nearest level of each class.
vec4 trellis_distances(uint format, float y) {
  vec4 index = vec4(0.0, 1.0, 2.0, 3.0);
  vec4 level = trellis_levels4(format, index);
  vec4 value = level;
  [[unroll]] for (uint i = 1u; i < trellis_count(format) / 4u; ++i) {
    index += 4.0;
    vec4 next = trellis_levels4(format, index);
    value = mix(value, next, greaterThan(vec4(y), (level + next) * 0.5));
    level = next;
  }
  precise vec4 error = vec4(y) - value;
  precise vec4 squared = error * error;
  return squared;
}

// How many midpoints of its class each y lies above; `index` names the classes.
uvec4 trellis_upper4(uint format, vec4 y, vec4 index) {
  vec4 level = trellis_levels4(format, index);
  uvec4 upper = uvec4(0u);
  [[unroll]] for (uint i = 1u; i < trellis_count(format) / 4u; ++i) {
    index += 4.0;
    vec4 next = trellis_levels4(format, index);
    upper += mix(uvec4(0u), uvec4(1u), greaterThan(y, (level + next) * 0.5));
    level = next;
  }
  return upper;
}

// Two passes a block over free paths choose the better of the two scales below the largest magnitude, eight more try each state as the one to
// begin and end in: one body for all, as it is long. What belongs to the block of the pass is in v and in the x of pairs; blocks that share a
// scale take turns. Arrays turn too, so that indices are constants: compilers unroll loops whose indices are not.
void trellis_encode_block(uint format, vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {
  uint spans = kv_block(format) / 32u;
  uint count = trellis_count(format);
  vec4 v[8], other[8];
  uint amax = 0u;
  for (int i = 0; i < 8; ++i) {
    amax = max(amax, magnitude_bits(x[i]));
    if (spans == 2u) amax = max(amax, magnitude_bits(x[i + 8]));
    v[i] = clamp(x[i], vec4(-KVANT_TRELLIS_MOST), vec4(KVANT_TRELLIS_MOST));
    other[i] = clamp(x[i + 8], vec4(-KVANT_TRELLIS_MOST), vec4(KVANT_TRELLIS_MOST));
  }
  uint largest = ue5m3_floor(amax);
  scale = largest;
  float least = 0.0, free_cost = 0.0;
  vec2 best = vec2(0.0);
  uvec2 path = uvec2(0u);
  for (uint pass = 0u; pass < 10u * spans; ++pass) {
    uint turn = pass / spans;
    bool free = turn < 2u;
    uint candidate = free ? max(largest - min(largest, turn), 1u) : scale;
    float unit = ue5m3_to_f32(candidate) * KVANT_TRELLIS_UNIT;
    float inverse = reciprocal_exact(unit);
    uint first = turn - 2u;
    vec4 costs = trellis_start(free, first, uvec4(0u, 1u, 2u, 3u));
    vec4 costs4 = trellis_start(free, first, uvec4(4u, 5u, 6u, 7u));
    uint won[8] = uint[8](0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u);
    for (uint quad = 0u; quad < 8u; ++quad) {
      precise vec4 y = v[0] * inverse;
      KV_TURN_LEFT(vec4, v)
      won[0] = trellis_step(costs, costs4, trellis_distances(format, y.x));
      won[0] |= trellis_step(costs, costs4, trellis_distances(format, y.y)) << 8;
      won[0] |= trellis_step(costs, costs4, trellis_distances(format, y.z)) << 16;
      won[0] |= trellis_step(costs, costs4, trellis_distances(format, y.w)) << 24;
      KV_TURN_LEFT(uint, won)
    }
    if (free) {
      precise float sum = pass % spans == 0u ? trellis_least(costs, costs4) : free_cost + trellis_least(costs, costs4);
      precise float cost = sum * unit * unit;
      if (pass % spans == spans - 1u) {
        if (turn == 0u || cost < least) scale = candidate;
        least = cost;
      }
      free_cost = sum;
    } else {
      float cost = trellis_end(costs, costs4, first);
      if (first == 0u || cost < best.x) {
        best.x = cost;
        path.x = 0u;
        uint state = first;
        for (uint quad = 0u; quad < 8u; ++quad) {
          KV_TURN_RIGHT(uint, won)
          for (int t = 24; t >= 0; t -= 8) {
            path.x = (path.x << 1) | (state & 1u);
            state = (state >> 1) | (((won[0] >> (uint(t) + state)) & 1u) << 2);
          }
        }
      }
    }
    if (spans == 2u) {
      vec4 swap[8] = v;
      v = other;
      other = swap;
      best = best.yx;
      path = path.yx;
    }
  }
  float inverse = reciprocal_exact(ue5m3_to_f32(max(scale, 1u)) * KVANT_TRELLIS_UNIT);
  uvec4 low[2] = uvec4[2](uvec4(0u), uvec4(0u));
  high = uvec2(0u);
  const uvec4 by = uvec4(0u, 1u, 2u, 3u);
  for (uint span = 0u; span < spans; ++span) {
    uint z1 = path.x ^ trellis_before(path.x, 1u) ^ trellis_before(path.x, 3u);
    uint z0 = trellis_before(path.x, 2u);
    low = uvec4[2](low[1], uvec4(0u));
    high = uvec2(high.y, 0u);
    for (uint quad = 0u; quad < 8u; ++quad) {
      precise vec4 y = v[0] * inverse;
      KV_TURN_LEFT(vec4, v)
      uvec4 of_class = (((uvec4(z1) >> by) & 1u) << 1) | ((uvec4(z0) >> by) & 1u);
      uvec4 code = (trellis_upper4(format, y, vec4(of_class)) << 1) | ((uvec4(path.x) >> by) & 1u);
      low[1] = trellis_append(format, low[1], code);
      uvec4 top = (code >> kv_code_bits(format)) << (by + 28u);
      high.y = (high.y >> 4) | top.x | top.y | top.z | top.w;
      z1 >>= 4;
      z0 >>= 4;
      path.x >>= 4;
    }
    if (spans == 2u) {
      v = other;
      path = path.yx;
    }
  }
  codes[0] = spans == 2u ? low[0] : low[1];
  codes[1] = spans == 2u ? low[1] : uvec4(0u);
  high = spans == 2u ? high : uvec2(high.y, 0u);
  if (largest == 0u || amax >= KV_HUGE_BITS) {
    scale = largest == 0u ? 0u : UE5M3_NAN;
    uint zero = count / 4u & ((1u << kv_code_bits(format)) - 1u);
    codes[0] = uvec4(zero * (kv_code_bits(format) == 4u ? 0x11111111u : 0x55555555u));
    codes[1] = codes[0];
    high = uvec2(count / 4u >> kv_code_bits(format) != 0u ? 0xFFFFFFFFu : 0u);
  }
}

#endif
