// The oracle of the attention cases: attention over plain arrays in double, without pages, items or splits, together with a
// bound on the error that each arithmetic may make. docs/conformance.md derives the bounds.
#pragma once

#include <cstdint>
#include <vector>

namespace kvant::reference {

// How a module computes the scores. Softmax and accumulation are f32 in all of them; `matrix` rounds V and the weights to f16.
enum class Arithmetic : std::uint32_t { f32, f16, int_dot, matrix };

struct DenseSequence {
  std::vector<float> k, v;              // decoded, [kv][kv_head][dim]
  std::vector<std::uint8_t> mapped;     // per token; 0: its page is unmapped
  std::uint32_t kv_len = 0, q_begin = 0, q_len = 0;
  std::int64_t q_position = 0;          // of the first query
  std::vector<std::uint32_t> mask;      // q_len rows of mask_row_words; empty: none
  std::uint32_t mask_row_words = 0, mask_kv_begin = 0;
  std::vector<float> bias;              // [query][bias_head][kv], added to the logits, -infinity hides; empty: none
};

struct DenseProblem {
  std::uint32_t q_heads = 1, kv_heads = 1, dim_k = 0, dim_v = 0;
  std::vector<float> q;                 // [row][q_head][dim_k]
  std::vector<DenseSequence> sequences;
  bool causal = true;
  std::uint32_t window = 0, window_sinks = 0;
  double scale = 1.0, soft_cap = 0.0;
  std::vector<float> sinks, slopes;     // per query head, or empty; where there is a bias, the slope is its factor
  std::vector<float> mean_k, mean_v;    // [kv_head][dim], added to every decoded row; or empty
  std::uint32_t bias_heads = 1;         // head h has the rows of h % bias_heads
  Arithmetic arithmetic = Arithmetic::f32;
  // Relative rounding of the output's type: 2^-24 (f32), 2^-11 (f16), 2^-8 (bf16), and its smallest step.
  double out_rounding = 0x1p-24, out_step = 0.0;
};

struct DenseResult {
  std::vector<double> out, out_bound;   // [row][q_head][dim_v]
  std::vector<double> weight;           // per element: sum of p |v|, the scale that errors are seen against
  // [row][q_head]: the part of out_bound that the root mean square error over dim_v may reach. A half, as its elements' errors mostly
  // differ; up to the whole where few keys carry the row, all of whose elements then have the error of the same few drawn logits.
  std::vector<double> row_share;
  std::vector<double> lse, lse_bound;   // [row][q_head]
  // Per sequence [kv][kv_head]: what its queries and the head's query heads give to a key, and the error score may make.
  std::vector<std::vector<double>> mass, mass_bound;
};

DenseResult dense_attention(const DenseProblem& problem);

}  // namespace kvant::reference
