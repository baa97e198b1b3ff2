// What the attention kernels do with a row at its end: its factor and log-sum-exp, and its elements to OUT or PARTIAL. Needs row_sum and
// row_rescale in shared memory.
#ifndef KVANT_ATTEND_OUTPUT_GLSL
#define KVANT_ATTEND_OUTPUT_GLSL

IO_OUTPUT(out, out_words)

// Final factors of the rows into row_rescale, and their log-sum-exps to memory.
void finish_row(AttendSeq seq, AttendItem item, Tile tile, uint row, float largest) {
  const bool is_final = item.partial_row == KVANT_ITEM_FINAL;
  const uint head = row_head(tile, row);
  float sum = row_sum[row];
  float factor = 1.0;
  if (HAS_SINKS && is_final) {
    const float sink = head_fact(params.sinks_offset + head);
    factor = softmax_join(largest, sum, sink, 1.0);
  }
  row_rescale[row] = sum == 0.0 ? 0.0 : factor / sum;
  if (!row_is_valid(item, tile, row)) return;
  const float lse = softmax_lse(largest, sum);
  if (!is_final)
    partial_words[params.partial_lse_offset + item.partial_row + row / HEADS_PER_TILE * params.q_heads + head] = lse;
  else if (HAS_LSE)
    lse_or_bias_words[params.lse_offset + (seq.q_begin + row_query(item, row)) * params.q_heads + head] =
        floatBitsToUint(lse);
}

// Four elements of a valid row, from e on.
void write_row_quad(AttendSeq seq, AttendItem item, Tile tile, uint row, uint e, vec4 x) {
  const uint head = row_head(tile, row);
  if (item.partial_row == KVANT_ITEM_FINAL) {
    const uint q_row = seq.q_begin + row_query(item, row);
    const uint at = params.out_offset + q_row * params.out_token_stride + head * params.out_head_stride;
    out_store4(IO_TYPE_OUT, at + e, x);
  } else {
    const uint at = (item.partial_row + row / HEADS_PER_TILE * params.q_heads + head) * HEAD_DIM_V + e;
    [[unroll]] for (uint i = 0u; i < 4u; ++i) partial_words[at + i] = x[i];
  }
}
#endif
