// Weights times V. V_LANES neighbouring lanes, a team, share the V rows of a group of four tokens, a span of 32
// elements each; a lane adds weight * V of its groups for all rows in registers. At the end the teams' sums meet, by
// subgroup operations where there are any, then in shared memory, and become the output.
#ifndef KVANT_ATTEND_VALUES_GLSL
#define KVANT_ATTEND_VALUES_GLSL

KV_REGION(v, v_words16, v_words)
#ifdef USE_TOUCH
TOUCH_PAGES(v, v_words16, v_words)
#endif

const uint V_TEAMS = LOCAL_SIZE / V_LANES;

vec4 value_sums[ROWS * 8u];

void clear_value_sums() {
  [[unroll]] for (uint i = 0u; i < ROWS * 8u; ++i) value_sums[i] = vec4(0.0);
}

void rescale_value_sums() {
  [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
    const float factor = row_rescale[r];
    [[unroll]] for (uint i = 0u; i < 8u; ++i) value_sums[r * 8u + i] *= factor;
  }
}

void add_values(AttendSeq seq, Tile tile, uint begin, uint groups, uint lane) {
  const uint span = min(lane % V_LANES, V_SPANS - 1u);
  const uint team = lane / V_LANES;
  const uint head_words = kv_head_words16(FORMAT_V, HEAD_DIM_V, PAGE_TOKENS);
#ifdef USE_TOUCH
  uint turn = begin;  // the same in all lanes, which `token` is not
#endif
  for (uint g = team; g < (team < V_TEAMS ? groups : 0u); g += V_TEAMS) {
#ifdef USE_TOUCH
    if (TOUCH != 0u) {
      const uint next = TOUCH_NEXT(turn, V_TEAMS, begin + groups * 4u - 4u);
      v_touch(FORMAT_V, HEAD_DIM_V, (local_page(page_of(seq, next)) * params.kv_heads + tile.kv_head) * head_words, next % PAGE_TOKENS,
              TOUCH_TOKENS(V_TEAMS));
      turn += V_TEAMS * 4u;
    }
#endif
    const uint token = begin + g * 4u;
    const uint base = (local_page(page_of(seq, token)) * params.kv_heads + tile.kv_head) * head_words;
    vec4 weights[ROWS];
    vec4 most = vec4(0.0);
    [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
      weights[r] = pool[r * GROUPS + g];
      most = max(most, weights[r]);
    }
    [[unroll]] for (uint u = 0u; u < 4u; ++u) {
      uvec4 codes[8];
      uint high, scale;
      vec4 x[8];
      v_load_span(FORMAT_V, HEAD_DIM_V, PAGE_TOKENS, base, (token + u) % PAGE_TOKENS, span, codes, high, scale);
      // Zero codes decode to finite values in every format: what no row sees cannot bring NaN into the sums.
      const bool use = most[u] > 0.0;
      [[unroll]] for (uint i = 0u; i < 8u; ++i) codes[i] = use ? codes[i] : uvec4(0u);
      high = use ? high : 0u;
      scale = use ? scale : 0u;
      kv_decode_span(FORMAT_V, codes, high, scale, x);
      [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
        const float weight = weights[r][u];
        // Rows that can differ in what they see select for themselves; of a bias, which hides many keys, by a branch: it
        // takes fewer registers than a selection per element.
        if (ROWS_DIFFER && HAS_BIAS) {
          if (weight > 0.0) {
            [[unroll]] for (uint i = 0u; i < 8u; ++i)
              value_sums[r * 8u + i] = fma(vec4(weight), x[i], value_sums[r * 8u + i]);
          }
        } else {
          [[unroll]] for (uint i = 0u; i < 8u; ++i) {
            const vec4 sum = fma(vec4(weight), x[i], value_sums[r * 8u + i]);
            if (ROWS_DIFFER) value_sums[r * 8u + i] = weight > 0.0 ? sum : value_sums[r * 8u + i];
            else value_sums[r * 8u + i] = sum;
          }
        }
      }
    }
  }
}

// Within a unit of SUM_UNIT lanes, teams add up by halving: at each of the first three steps a lane keeps half of its
// quads of a row and gives the other half to its partner; further steps add the one quad that is left.
const uint SUM_RATIO = SUM_UNIT / V_LANES;
const uint SUM_QUADS = SUM_RATIO < 8u ? 8u / SUM_RATIO : 1u;  // quads of a row that a lane has in the end

// First of the lane's quads.
uint first_quad(uint lane) {
  const uint team = lane % SUM_UNIT / V_LANES;
  uint quad = 0u;
  [[unroll]] for (uint step = 0u; step < 3u; ++step) {
    if ((1u << step) < SUM_RATIO) quad += ((team >> step) & 1u) * (4u >> step);
  }
  return quad;
}

#ifdef USE_SUBGROUP
// Loops have constant bounds and constant conditions: drivers must unroll them to keep value_sums in registers.
void halve_value_sums(uint lane, uint distance, const uint kept) {
  const bool upper = (lane & distance) != 0u;
  [[unroll]] for (uint j = 0u; j < ROWS * 8u; ++j) {
    if (j % 8u < kept) {
      const vec4 low = value_sums[j];
      const vec4 high = value_sums[j + kept];
      value_sums[j] = (upper ? high : low) + subgroupShuffleXor(upper ? low : high, distance);
    }
  }
}

void add_value_sums_in_subgroup(uint lane) {
  if (SUM_RATIO > 1u) halve_value_sums(lane, V_LANES, 4u);
  if (SUM_RATIO > 2u) halve_value_sums(lane, V_LANES * 2u, 2u);
  if (SUM_RATIO > 4u) halve_value_sums(lane, V_LANES * 4u, 1u);
  [[unroll]] for (uint step = 3u; step < 7u; ++step) {
    if ((1u << step) < SUM_RATIO) {
      [[unroll]] for (uint r = 0u; r < ROWS; ++r)
        value_sums[r * 8u] += subgroupShuffleXor(value_sums[r * 8u], V_LANES << step);
    }
  }
}
#endif

// Puts the lane's sums of rows first .. first + count - 1 into the pool: [copy][row][V_LANES * 8].
void share_value_sums(uint first, uint count, uint lane) {
  const uint copy = lane / SUM_UNIT;
  if (copy >= SUM_COPIES || lane % SUM_UNIT >= V_LANES * 8u) return;
  const uint quad = lane % V_LANES * 8u + first_quad(lane);
  [[unroll]] for (uint r = 0u; r < count; ++r) {
    [[unroll]] for (uint i = 0u; i < SUM_QUADS; ++i)
      pool[(copy * count + r) * V_LANES * 8u + quad + i] = value_sums[(first + r) * 8u + i];
  }
}

// Adds the copies in the pool and writes the rows, each times its factor.
void write_rows(AttendSeq seq, AttendItem item, Tile tile, uint first, uint count, uint lane) {
  for (uint w = lane; w < count * V_SPANS * 8u; w += LOCAL_SIZE) {
    const uint local_row = w / (V_SPANS * 8u);
    const uint quad = w % (V_SPANS * 8u);
    const uint row = first + local_row;
    const uint e = quad * 4u;
    if (e >= HEAD_DIM_V || !row_is_valid(item, tile, row)) continue;
    vec4 x = vec4(0.0);
    for (uint c = 0u; c < SUM_COPIES; ++c) x += pool[(c * count + local_row) * V_LANES * 8u + quad];
    write_row_quad(seq, item, tile, row, e, x * row_rescale[row]);
  }
}
#endif
