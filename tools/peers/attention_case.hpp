// One attention to be timed: its shape, its inputs (the same bytes in every process), and what it should give.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <string>
#include <vector>

namespace kvant::peers {

// Queries are the last tokens of each sequence and see what is not behind them.
struct AttentionCase {
  ggml_type type = GGML_TYPE_F16;
  std::int64_t head_dim = 0, kv_heads = 0, group = 0, kv = 0, queries = 0, sequences = 0;

  std::int64_t query_heads() const { return kv_heads * group; }
  std::int64_t row() const { return kv_heads * head_dim; }  // elements of a token
  std::size_t output_floats() const { return static_cast<std::size_t>(head_dim * query_heads() * queries * sequences); }
};

// "TYPE HEAD_DIM KV_HEADS GROUP KV QUERIES SEQUENCES"; false: not that, or a shape that no backend takes.
bool parse_case(const std::string& text, AttentionCase& out);

struct Inputs {
  std::vector<std::uint8_t> k, v;  // [sequences][kv][kv_heads][head_dim] in the case's type
  std::vector<float> q;            // [sequences][query_heads][queries][head_dim]
  std::vector<ggml_fp16_t> mask;   // [queries][kv]: 0 or -inf
};
// Elements are N(0,1), by a generator of fixed seed.
Inputs make_inputs(const AttentionCase& c);

// Queries whose output is compared: at most eight of (sequence, query), spread over both.
std::vector<std::pair<std::int64_t, std::int64_t>> sampled_queries(const AttentionCase& c);

// softmax(Q K^T / sqrt(d)) V in double of the decoded K and V: [sample][query_heads][head_dim].
std::vector<float> reference_output(const AttentionCase& c, const Inputs& in);

// The sampled queries' part of an output [sequences][queries][query_heads][head_dim], in the reference's order.
std::vector<float> sampled_output(const AttentionCase& c, const std::vector<float>& output);

// sqrt(sum (a - b)^2 / sum b^2); NaN where a has one.
double relative_error(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace kvant::peers
