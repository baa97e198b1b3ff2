// Viterbi's algorithm in plain f32, every operation rounded once, in the order of the shader (the build compiles this folder with -ffp-contract=off).
#include "trellis.hpp"

#include <algorithm>
#include <array>

#include "params/trellis.h"

namespace kvant::codec {
namespace {

constexpr std::uint32_t kElements = 32, kStates = 8, kClasses = 4;

using Costs = std::array<float, kStates>;

float unit_of(std::uint32_t scale_bits) { return ue5m3_to_f32(scale_bits) * KVANT_TRELLIS_UNIT; }

// The upper bits of the nearest level of a class.
std::uint32_t nearest(const Trellis& table, std::uint32_t of_class, float y) {
  std::uint32_t upper = 0;
  for (std::uint32_t i = 1; i < table.count / kClasses; ++i) {
    const float sum = table.levels[kClasses * i + of_class] + table.levels[kClasses * (i - 1) + of_class];
    if (y > sum * 0.5f) upper = i;
  }
  return upper;
}

float squared_error(const Trellis& table, std::uint32_t of_class, float y) {
  const float error = y - table.levels[kClasses * nearest(table, of_class, y) + of_class];
  return error * error;
}

// The class that u leads to from a state, whose bits are u of the element before (bit 0), of the one before that and of the third before.
std::uint32_t class_of(std::uint32_t state, std::uint32_t u) { return 2 * (u ^ (state & 1u) ^ (state >> 2)) + ((state >> 1) & 1u); }

using Distances = std::array<std::array<float, kClasses>, kElements>;

Distances distances(const Trellis& table, const float* x, float unit) {
  const float inverse = 1.0f / unit;
  Distances d{};
  for (std::uint32_t t = 0; t < kElements; ++t)
    for (std::uint32_t c = 0; c < kClasses; ++c) d[t][c] = squared_error(table, c, x[t] * inverse);
  return d;
}

using Before = std::array<std::array<std::uint32_t, kStates>, kElements>;

// The least cost of a path to each state, and the states that these paths come from.
Costs walk(const Distances& d, Costs costs, Before* before) {
  for (std::uint32_t t = 0; t < kElements; ++t) {
    Costs next{};
    for (std::uint32_t state = 0; state < kStates; ++state) {
      const std::uint32_t u = state & 1u, first = state >> 1, second = first + 4;
      const float one = costs[first] + d[t][class_of(first, u)], other = costs[second] + d[t][class_of(second, u)];
      (*before)[t][state] = other < one ? second : first;
      next[state] = other < one ? other : one;
    }
    costs = next;
  }
  return costs;
}

// The least squared error of a path that may begin and end anywhere, in units of the levels.
float free_cost(const Trellis& table, const float* x, float unit) {
  Before before{};
  const Costs costs = walk(distances(table, x, unit), Costs{}, &before);
  return *std::min_element(costs.begin(), costs.end());
}

// The bits u of the best path that ends in the state that it begins in.
std::uint32_t closed_path(const Trellis& table, const float* x, float unit) {
  const Distances d = distances(table, x, unit);
  float best = 0.0f;
  std::uint32_t path = 0;
  for (std::uint32_t start = 0; start < kStates; ++start) {
    Costs begin;
    begin.fill(KVANT_TRELLIS_FORBIDDEN);
    begin[start] = 0.0f;
    Before before{};
    const Costs costs = walk(d, begin, &before);
    if (start != 0 && !(costs[start] < best)) continue;
    best = costs[start];
    path = 0;
    for (std::uint32_t t = kElements, state = start; t-- > 0; state = before[t][state]) path |= (state & 1u) << t;
  }
  return path;
}

std::uint32_t bit(std::uint32_t path, std::uint32_t t, std::uint32_t distance) { return (path >> ((t + kElements - distance) % kElements)) & 1u; }
std::uint32_t state_before(std::uint32_t path, std::uint32_t t) { return bit(path, t, 1) | (bit(path, t, 2) << 1) | (bit(path, t, 3) << 2); }

}  // namespace

void encode_trellis(const Trellis& table, const float* x, std::uint32_t* codes, std::uint32_t* scale_bits) {
  const std::uint32_t elements = kElements * table.spans, amax = largest_magnitude(x, elements);
  std::fill_n(codes, elements, table.count / 4);
  *scale_bits = kNanUe5m3;
  if (amax >= kHugeBits) return;
  float inside[2 * kElements];
  for (std::uint32_t t = 0; t < elements; ++t) inside[t] = std::clamp(x[t], -KVANT_TRELLIS_MOST, KVANT_TRELLIS_MOST);
  *scale_bits = ue5m3_floor(amax);
  if (*scale_bits == 0) return;
  const std::uint32_t candidates[2] = {*scale_bits, std::max(*scale_bits - 1u, 1u)};
  float cost[2];
  for (std::uint32_t i = 0; i < 2; ++i) {
    const float unit = unit_of(candidates[i]);
    float sum = free_cost(table, inside, unit);
    for (std::uint32_t span = 1; span < table.spans; ++span) sum += free_cost(table, inside + span * kElements, unit);
    cost[i] = sum * unit * unit;
  }
  *scale_bits = candidates[cost[1] < cost[0] ? 1 : 0];
  const float unit = unit_of(*scale_bits), inverse = 1.0f / unit;
  for (std::uint32_t span = 0; span < table.spans; ++span) {
    const float* from = inside + span * kElements;
    const std::uint32_t path = closed_path(table, from, unit);
    for (std::uint32_t t = 0; t < kElements; ++t) {
      const std::uint32_t u = bit(path, t, 0);
      codes[span * kElements + t] = (nearest(table, class_of(state_before(path, t), u), from[t] * inverse) << 1) | u;
    }
  }
}

void decode_trellis(const Trellis& table, const std::uint32_t* codes, std::uint32_t scale_bits, float* x) {
  const float unit = unit_of(scale_bits);
  for (std::uint32_t span = 0; span < table.spans; ++span, codes += kElements, x += kElements) {
    std::uint32_t path = 0;
    for (std::uint32_t t = 0; t < kElements; ++t) path |= (codes[t] & 1u) << t;
    for (std::uint32_t t = 0; t < kElements; ++t)
      x[t] = table.levels[kClasses * (codes[t] >> 1) + class_of(state_before(path, t), codes[t] & 1u)] * unit;
  }
}

namespace {

bool has_high_bits(const Trellis& table) { return table.count / 2 > 1u << table.low_bits; }
std::uint32_t low_bytes(const Trellis& table) { return kElements * table.low_bits / 8; }

}  // namespace

void pack_trellis(const Trellis& table, const std::uint32_t* codes, std::uint32_t scale_bits, std::byte* out) {
  store_le(out++, scale_bits, 1);
  const std::uint32_t per_byte = 8 / table.low_bits, mask = (1u << table.low_bits) - 1u;
  for (std::uint32_t span = 0; span < table.spans; ++span, codes += kElements) {
    if (has_high_bits(table)) {
      std::uint32_t word = 0;
      for (std::uint32_t t = 0; t < kElements; ++t) word |= (codes[t] >> table.low_bits & 1u) << t;
      store_le(out, word, 4);
      out += 4;
    }
    std::fill_n(out, low_bytes(table), std::byte{0});
    for (std::uint32_t t = 0; t < kElements; ++t) out[t / per_byte] |= static_cast<std::byte>((codes[t] & mask) << (t % per_byte * table.low_bits));
    out += low_bytes(table);
  }
}

void unpack_trellis(const Trellis& table, const std::byte* in, std::uint32_t* codes, std::uint32_t* scale_bits) {
  *scale_bits = load_le(in++, 1);
  const std::uint32_t per_byte = 8 / table.low_bits, mask = (1u << table.low_bits) - 1u;
  for (std::uint32_t span = 0; span < table.spans; ++span, codes += kElements) {
    const std::uint32_t high = has_high_bits(table) ? load_le(in, 4) : 0;
    if (has_high_bits(table)) in += 4;
    for (std::uint32_t t = 0; t < kElements; ++t) {
      const std::uint32_t low = (std::to_integer<std::uint32_t>(in[t / per_byte]) >> (t % per_byte * table.low_bits)) & mask;
      codes[t] = low | ((high >> t) & 1u) << table.low_bits;
    }
    in += low_bytes(table);
  }
}

}  // namespace kvant::codec
