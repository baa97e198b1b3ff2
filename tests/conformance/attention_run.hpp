// One attention problem, and how to run it through a Cache on any executor. Shared by attend and relation cases.
#pragma once

#include <cstdint>
#include <vector>

#include "cases.hpp"
#include "dense_attention.hpp"
#include "run_case.hpp"
#include "tensor_layout.hpp"

namespace kvant::conformance {

// All inputs of a case. Tensors are by sequence and already rounded to the case's input type.
struct AttentionInputs {
  std::vector<SequenceShape> shapes;
  std::vector<std::uint32_t> fresh;              // tokens appended in the attention step; the rest is history
  std::vector<std::vector<float>> k, v;          // [token][kv_head][dim]
  std::vector<std::vector<float>> q;             // [query][q_head][dim]
  std::vector<std::vector<std::int32_t>> pages;  // of the engine's table; -1 = hole
  std::uint32_t pool_pages = 0;
  std::vector<std::vector<std::uint32_t>> masks; // per sequence, q_len rows of mask_row_words; empty: none
  std::uint32_t mask_row_words = 0;
  std::vector<std::uint32_t> mask_kv_begin;
  std::vector<std::int32_t> q_position;
  std::vector<float> sinks, slopes;
  std::vector<float> means_k, means_v, stored_k, stored_v;  // of centred sides, as given and as they are stored
  float scale = 0.0f, soft_cap = 0.0f;
  std::uint32_t pages_per_slab = 0;              // 0: as the executor likes
};

AttentionInputs make_attention_inputs(std::uint64_t seed, const Case& c);

struct AttentionOutput {
  Bytes out, lse;      // with guards of kGuardBytes
  std::vector<float> mass;  // score: of every sequence and KV head in turn, token by token; NaN: its page has left the window
  std::string kernel;
  std::vector<std::uint32_t> spec;
};

// Appends history and fresh tokens, attends, and gives the outputs back. `config` null: as the executor's tuning says.
Result<AttentionOutput> run_attention(Executor& executor, const Case& c, const AttentionInputs& inputs, const AttendConfig* config);

TensorLayout out_layout(const Case& c, const AttentionInputs& inputs);
TensorLayout lse_layout(const Case& c, const AttentionInputs& inputs);

// The oracle's view of the same inputs: K and V decoded from their codes.
reference::DenseProblem attention_problem(const Case& c, const AttentionInputs& inputs);
reference::DenseResult attention_truth(const Case& c, const AttentionInputs& inputs);

// Values within the bounds, everything around them untouched.
Comparison check_attention(const Case& c, const AttentionInputs& inputs, const reference::DenseResult& truth,
                           const AttentionOutput& output);

}  // namespace kvant::conformance
