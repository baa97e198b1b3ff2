// Chunks of K and V as fp16 tiles in shared memory, and their products by cooperative matrices. A subgroup has the rows
// SUBGROUP_ROWS * gl_SubgroupID and following to itself, of which it makes ROW_TILES tiles.
#ifndef KVANT_MATRIX_TILES_GLSL
#define KVANT_MATRIX_TILES_GLSL

KV_REGION(k, k_words16, k_words)
KV_REGION(v, v_words16, v_words)

#define MATRIX_A coopmat<float16_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA>
#define MATRIX_B coopmat<float16_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB>
#define MATRIX_SUM coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>

const uint K_STEPS = K_SPANS * 32u / MATRIX_K;
const uint V_TILES = V_SPANS * 32u / MATRIX_N;
const uint CHUNK_TILES = CHUNK / MATRIX_N;
const uint CHUNK_STEPS = CHUNK / MATRIX_K;

MATRIX_SUM value_sums[ROW_TILES * V_TILES];

void clear_value_sums() {
  [[unroll]] for (uint i = 0u; i < ROW_TILES * V_TILES; ++i) value_sums[i] = MATRIX_SUM(0.0);
}

// Elements that fp16 does not hold as finite numbers; a finite scale may carry some.
bool has_specials(vec4 x[8]) {
  bool finite = true;
  [[unroll]] for (uint quad = 0u; quad < 8u; ++quad) finite = finite && all(lessThanEqual(abs(x[quad]), vec4(65504.0)));
  return !finite;
}

// One side of a chunk into kv_tile. Rows of tokens that are not there, or have no page, are zeros.
#define STAGE_CHUNK(name, load_span, FORMAT, HEAD_DIM, SPANS, IS_V)                                                   \
  void name(AttendSeq seq, Tile tile, uint begin, uint end, uint lane) {                                              \
    const uint head_words = kv_head_words16(FORMAT, HEAD_DIM, PAGE_TOKENS);                                           \
    for (uint i = lane; i < CHUNK * SPANS; i += LOCAL_SIZE) {                                                         \
      const uint token = begin + i / SPANS;                                                                           \
      const uint page = token < end ? page_of(seq, token) : PAGE_UNMAPPED;                                            \
      const uint at = i / SPANS * KV_ROW + i % SPANS * 8u;                                                            \
      vec4 x[8];                                                                                                      \
      [[unroll]] for (uint quad = 0u; quad < 8u; ++quad) x[quad] = vec4(0.0);                                         \
      if (page != PAGE_UNMAPPED) {                                                                                    \
        const uint base = (local_page(page) * params.kv_heads + tile.kv_head) * head_words;                           \
        uvec4 codes[8];                                                                                               \
        uint high, scale;                                                                                             \
        load_span(FORMAT, HEAD_DIM, PAGE_TOKENS, base, token % PAGE_TOKENS, i % SPANS, codes, high, scale);           \
        kv_decode_span(FORMAT, codes, high, scale, x);                                                                \
        if (IS_V && has_specials(x)) atomicOr(chunk_has_specials[0], 1u);                                             \
      }                                                                                                               \
      [[unroll]] for (uint quad = 0u; quad < 8u; ++quad) kv_tile[at + quad] = f16vec4(x[quad]);                       \
    }                                                                                                                 \
  }
STAGE_CHUNK(stage_keys, k_load_span, FORMAT_K, HEAD_DIM_K, K_SPANS, false)
STAGE_CHUNK(stage_values, v_load_span, FORMAT_V, HEAD_DIM_V, V_SPANS, true)

void stage_pages(AttendSeq seq, uint begin, uint end, uint lane) {
  if (lane == 0u) chunk_has_specials[0] = 0u;
  for (uint i = lane; i < CHUNK / PAGE_TOKENS; i += LOCAL_SIZE) {
    const uint token = begin + i * PAGE_TOKENS;
    chunk_pages[i] = token < end ? page_of(seq, token) : PAGE_UNMAPPED;
  }
}

// Q . K of the subgroup's rows with the chunk's tokens, into pool.
void multiply_scores(uint first_row) {
  MATRIX_SUM scores[ROW_TILES * CHUNK_TILES];
  [[unroll]] for (uint i = 0u; i < ROW_TILES * CHUNK_TILES; ++i) scores[i] = MATRIX_SUM(0.0);
  [[dont_unroll]] for (uint step = 0u; step < K_STEPS; ++step) {
    MATRIX_A q[ROW_TILES];
    [[unroll]] for (uint r = 0u; r < ROW_TILES; ++r)
      coopMatLoad(q[r], query_tile, (first_row + r * MATRIX_M) * QUERY_ROW + step * MATRIX_K / 4u, QUERY_ROW,
                  gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint n = 0u; n < CHUNK_TILES; ++n) {
      MATRIX_B k;
      coopMatLoad(k, kv_tile, n * MATRIX_N * KV_ROW + step * MATRIX_K / 4u, KV_ROW,
                  gl_CooperativeMatrixLayoutColumnMajor);
      [[unroll]] for (uint r = 0u; r < ROW_TILES; ++r)
        scores[r * CHUNK_TILES + n] = coopMatMulAdd(q[r], k, scores[r * CHUNK_TILES + n]);
    }
  }
  [[unroll]] for (uint r = 0u; r < ROW_TILES; ++r)
    [[unroll]] for (uint n = 0u; n < CHUNK_TILES; ++n)
      coopMatStore(scores[r * CHUNK_TILES + n], pool, (first_row + r * MATRIX_M) * SCORE_ROW + n * MATRIX_N / 4u,
                   SCORE_ROW, gl_CooperativeMatrixLayoutRowMajor);
}

// The sums times the factors of their rows, which stand MATRIX_N times in each row of pool.
void rescale_value_sums(uint first_row) {
  [[unroll]] for (uint r = 0u; r < ROW_TILES; ++r) {
    MATRIX_SUM factors;
    coopMatLoad(factors, pool, (first_row + r * MATRIX_M) * SCORE_ROW, SCORE_ROW, gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint n = 0u; n < V_TILES; ++n) value_sums[r * V_TILES + n] *= factors;
  }
}

// Adds weights . V of the chunk.
void multiply_values(uint first_row) {
  [[dont_unroll]] for (uint step = 0u; step < CHUNK_STEPS; ++step) {
    MATRIX_A weights[ROW_TILES];
    [[unroll]] for (uint r = 0u; r < ROW_TILES; ++r)
      coopMatLoad(weights[r], weight_tile, (first_row + r * MATRIX_M) * WEIGHT_ROW + step * MATRIX_K / 4u, WEIGHT_ROW,
                  gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint n = 0u; n < V_TILES; ++n) {
      MATRIX_B v;
      coopMatLoad(v, kv_tile, step * MATRIX_K * KV_ROW + n * MATRIX_N / 4u, KV_ROW, gl_CooperativeMatrixLayoutRowMajor);
      [[unroll]] for (uint r = 0u; r < ROW_TILES; ++r)
        value_sums[r * V_TILES + n] = coopMatMulAdd(weights[r], v, value_sums[r * V_TILES + n]);
    }
  }
}

// The same where V holds what fp16 does not, infinities or NaN: a row that does not see a token must not multiply it by its weight of zero. The elements of a
// matrix belong to no lane in particular, so that sums are made in pool.
void add_values_singly(uint first_row) {
  [[unroll]] for (uint t = 0u; t < V_TILES; t += CHUNK_TILES) {
    subgroupBarrier();
    for (uint w = gl_SubgroupInvocationID; w < SUBGROUP_ROWS * GROUPS; w += SUBGROUP_SIZE) {
      const uint row = first_row + w / GROUPS;
      const uint quad = t * MATRIX_N / 4u + w % GROUPS;
      vec4 sum = vec4(0.0);
      for (uint token = 0u; token < (quad < V_SPANS * 8u ? CHUNK : 0u); ++token) {
        const float weight = float(weight_tile[row * WEIGHT_ROW + token / 4u][token % 4u]);
        if (weight != 0.0) sum += weight * vec4(kv_tile[token * KV_ROW + quad]);
      }
      pool[row * SCORE_ROW + w % GROUPS] = sum;
    }
    subgroupBarrier();
    [[unroll]] for (uint r = 0u; r < ROW_TILES; ++r)
      [[unroll]] for (uint n = 0u; n < CHUNK_TILES; ++n)
        if (t + n < V_TILES) {
          MATRIX_SUM part;
          coopMatLoad(part, pool, (first_row + r * MATRIX_M) * SCORE_ROW + n * MATRIX_N / 4u, SCORE_ROW,
                      gl_CooperativeMatrixLayoutRowMajor);
          value_sums[r * V_TILES + t + n] += part;
        }
  }
}

// Columns first_tile .. + count - 1 of the subgroup's sums into pool.
void share_value_sums(uint first_row, const uint first_tile, const uint count) {
  [[unroll]] for (uint r = 0u; r < ROW_TILES; ++r)
    [[unroll]] for (uint n = 0u; n < count; ++n)
      if (first_tile + n < V_TILES)
        coopMatStore(value_sums[r * V_TILES + first_tile + n], pool,
                     (first_row + r * MATRIX_M) * SCORE_ROW + n * MATRIX_N / 4u, SCORE_ROW, gl_CooperativeMatrixLayoutRowMajor);
}
#endif
