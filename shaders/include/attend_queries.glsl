// Stages the query rows of a workgroup in shared memory, rotated where K is. Rows beyond the item's queries or the tile's heads repeat a
// valid one; their results are never written.
#ifndef KVANT_ATTEND_QUERIES_GLSL
#define KVANT_ATTEND_QUERIES_GLSL
#include "io.glsl"
#include "rotation.glsl"

IO_INPUT(q, q_words)
KV_ROTATED_LOAD(q_rotated, q_load4)

// Where the workgroup stands.
struct Tile {
  uint kv_head;
  uint first_head;  // query head of row 0
  uint heads;       // valid heads of the tile
};

Tile tile_of(uint y) {
  const uint group = params.q_heads / params.kv_heads;
  const uint tiles = (group + HEADS_PER_TILE - 1u) / HEADS_PER_TILE;
  const uint first = y % tiles * HEADS_PER_TILE;
  Tile tile;
  tile.kv_head = y / tiles;
  tile.first_head = tile.kv_head * group + first;
  tile.heads = min(HEADS_PER_TILE, group - first);
  return tile;
}

uint row_query(AttendItem item, uint row) { return item.q_begin + min(row / HEADS_PER_TILE, item.q_count - 1u); }
uint row_head(Tile tile, uint row) { return tile.first_head + min(row % HEADS_PER_TILE, tile.heads - 1u); }
bool row_is_valid(AttendItem item, Tile tile, uint row) {
  return row / HEADS_PER_TILE < item.q_count && row % HEADS_PER_TILE < tile.heads;
}

uint row_base(AttendSeq seq, AttendItem item, Tile tile, uint row) {
  return params.q_offset + (seq.q_begin + row_query(item, row)) * params.q_token_stride + row_head(tile, row) * params.q_head_stride;
}

void stage_queries(AttendSeq seq, AttendItem item, Tile tile, uint lane) {
  if ((FLAGS & KVANT_ROTATE_K) != 0u) {
    for (uint i = lane; i < STAGED_ROWS * K_SPANS; i += LOCAL_SIZE) {
      vec4 x[8];
      q_rotated(IO_TYPE_IN, HEAD_DIM_K, row_base(seq, item, tile, i / K_SPANS), i % K_SPANS, x);
      [[unroll]] for (uint quad = 0u; quad < 8u; ++quad) put_query(i / K_SPANS, i % K_SPANS * 8u + quad, x[quad]);
    }
  } else {
    for (uint i = lane; i < STAGED_ROWS * K_SPANS * 8u; i += LOCAL_SIZE) {
      const uint e = i % (K_SPANS * 8u) * 4u;
      vec4 x = vec4(0.0);
      if (e < HEAD_DIM_K) x = q_load4(IO_TYPE_IN, row_base(seq, item, tile, i / (K_SPANS * 8u)) + e);
      put_query(i / (K_SPANS * 8u), i % (K_SPANS * 8u), x);
    }
  }
}

// What centring took from the dot products of each row, into row_sum. After a barrier behind stage_queries; the next one makes it known.
void shift_rows(Tile tile, uint lane) {
  const uint lanes = LOCAL_SIZE / STAGED_ROWS;
  const uint row = min(lane / lanes, STAGED_ROWS - 1u);
  vec4 sum = vec4(0.0);
  for (uint quad = lane < STAGED_ROWS * lanes ? lane % lanes : HEAD_DIM_K / 4u; quad < HEAD_DIM_K / 4u; quad += lanes) {
    const uint at = tile.kv_head * HEAD_DIM_K + quad * 4u;
    sum = fma(get_query(row, quad), vec4(heads[at], heads[at + 1u], heads[at + 2u], heads[at + 3u]), sum);
  }
  lane_values[lane] = (sum.x + sum.y) + (sum.z + sum.w);
  barrier();
  if (lane < STAGED_ROWS) {
    float all = 0.0;
    for (uint i = 0u; i < lanes; ++i) all += lane_values[lane * lanes + i];
    row_sum[lane] = all;
  }
}
#endif
