// Shared memory of the attention kernels. `pool` holds the scores of a chunk, then, once no score is needed any more,
// the lanes' sums of V on their way to each other. backend/tuning.cpp computes the same sizes (attend_shared_bytes).
#ifndef KVANT_ATTEND_SHARED_GLSL
#define KVANT_ATTEND_SHARED_GLSL

const uint GROUPS = CHUNK / 4u;  // a group is four consecutive tokens; its scores are one vec4
const uint K_SPANS = (HEAD_DIM_K + 31u) / 32u;
const uint V_SPANS = (HEAD_DIM_V + 31u) / 32u;

// Lanes add up their sums of V by units, of which each leaves a copy in shared memory.
#ifdef USE_SUBGROUP
const uint SCORE_PLANES = 1u;
// A subgroup where V_LANES divides it, else V_LANES.
const uint SUM_UNIT = (V_LANES & (V_LANES - 1u)) == 0u ? (V_LANES < SUBGROUP_SIZE ? SUBGROUP_SIZE : V_LANES) : V_LANES;
#else
const uint SCORE_PLANES = K_LANES;
const uint SUM_UNIT = V_LANES;
#endif
const uint SUM_COPIES = LOCAL_SIZE / SUM_UNIT;

const uint SCORE_WORDS = SCORE_PLANES * ROWS * GROUPS;
const uint SUM_ROW_WORDS = SUM_COPIES * V_LANES * 8u;
// All rows meet at once if their sums fit where the scores were; else one row after the other.
#define SUM_ALL_ROWS (SUM_ROW_WORDS * ROWS <= SCORE_WORDS)
#ifdef KVANT_SCORE
const uint POOL_WORDS = 1u;  // score keeps its scores in registers
#else
const uint POOL_WORDS = SCORE_WORDS > SUM_ROW_WORDS ? SCORE_WORDS : SUM_ROW_WORDS;
#endif

shared vec4 pool[POOL_WORDS];
shared vec4 queries[ROWS * K_SPANS * 8u];  // zero beyond the head dimension
shared float lane_values[LOCAL_SIZE];
shared float row_largest[ROWS * 2u];       // of the chunks before and up to the current one, by parity
shared float row_rescale[ROWS];            // what the current chunk's larger maximum makes of earlier sums
shared float row_sum[ROWS];                // of weights; where K is centred, until then, q . the mean of K

const uint STAGED_ROWS = ROWS;
const uint SCORE_ROW = GROUPS;  // words of the pool from a row's scores to the next one's
void put_query(uint row, uint quad, vec4 x) { queries[row * K_SPANS * 8u + quad] = x; }
vec4 get_query(uint row, uint quad) { return queries[row * K_SPANS * 8u + quad]; }
bool score_is_kept(uint group) { return true; }  // of keys without a page, scores are SOFTMAX_EMPTY already
#endif
