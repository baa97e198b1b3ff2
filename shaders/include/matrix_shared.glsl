// Shared memory of attend_matrix and how its rows lie on subgroups. Tiles of fp16 have rows 16 bytes longer than their elements, so that
// the rows of a fragment begin in different banks. backend/tuning.cpp computes the same sizes (attend_shared_bytes).
#ifndef KVANT_MATRIX_SHARED_GLSL
#define KVANT_MATRIX_SHARED_GLSL

const uint GROUPS = CHUNK / 4u;  // a group is four consecutive tokens; its scores are one vec4
const uint K_SPANS = (HEAD_DIM_K + 31u) / 32u;
const uint V_SPANS = (HEAD_DIM_V + 31u) / 32u;
const uint SUBGROUPS = LOCAL_SIZE / SUBGROUP_SIZE;
const uint ROW_TILES = (ROWS + SUBGROUPS * MATRIX_M - 1u) / (SUBGROUPS * MATRIX_M);  // of a subgroup
const uint SUBGROUP_ROWS = ROW_TILES * MATRIX_M;
const uint STAGED_ROWS = SUBGROUPS * SUBGROUP_ROWS;  // rows beyond ROWS repeat others

const uint SCORE_PLANES = 1u;
const uint SCORE_ROW = GROUPS + 1u;
const uint QUERY_ROW = K_SPANS * 8u + 2u;  // in f16vec4
const uint WEIGHT_ROW = GROUPS + 2u;
const uint KV_ROW = (K_SPANS > V_SPANS ? K_SPANS : V_SPANS) * 8u + 2u;

shared f16vec4 query_tile[STAGED_ROWS * QUERY_ROW];  // zero beyond the head dimension
shared f16vec4 kv_tile[CHUNK * KV_ROW];              // K of a chunk, then V
shared f16vec4 weight_tile[STAGED_ROWS * WEIGHT_ROW];
shared vec4 pool[STAGED_ROWS * SCORE_ROW];           // scores of a chunk, then factors of the sums, in the end the sums
shared float lane_values[LOCAL_SIZE];
shared float row_rescale[STAGED_ROWS];
shared float row_sum[STAGED_ROWS];                   // where K is centred, until the end, q . the mean of K
shared uint chunk_pages[(CHUNK / PAGE_TOKENS + 3u) / 4u * 4u];  // as all arrays, a multiple of 16 bytes: fragments begin at such
shared uint chunk_has_specials[4];                   // [0]: some element of V is no finite number of fp16

void put_query(uint row, uint quad, vec4 x) { query_tile[row * QUERY_ROW + quad] = f16vec4(x); }
vec4 get_query(uint row, uint quad) { return vec4(query_tile[row * QUERY_ROW + quad]); }
bool score_is_kept(uint group) { return chunk_pages[group * 4u / PAGE_TOKENS] != PAGE_UNMAPPED; }
#endif
