#include "attention_case.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <random>
#include <sstream>

namespace kvant::peers {
namespace {

constexpr ggml_type kTypes[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,  GGML_TYPE_Q5_1,
                                GGML_TYPE_Q5_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL};

// A table walked from a place that moves: millions of values in a moment.
class Normals {
 public:
  Normals() : values_(1000003) {
    std::mt19937 engine(7);
    std::normal_distribution<float> normal;
    for (float& value : values_) value = normal(engine);
  }
  void fill(std::vector<float>& out, std::uint64_t seed) const {
    std::size_t at = static_cast<std::size_t>(seed * 2654435761u % values_.size());
    for (float& value : out) {
      value = values_[at];
      at = (at + 1) % values_.size();
    }
  }

 private:
  std::vector<float> values_;
};

std::vector<std::uint8_t> quantized(const AttentionCase& c, const std::vector<float>& values) {
  std::vector<std::uint8_t> bytes(ggml_row_size(c.type, static_cast<std::int64_t>(values.size())));
  ggml_quantize_chunk(c.type, values.data(), bytes.data(), 0, c.kv * c.sequences, c.row(), nullptr);
  return bytes;
}

std::vector<float> decoded(const AttentionCase& c, const std::vector<std::uint8_t>& bytes) {
  std::vector<float> values(static_cast<std::size_t>(c.row() * c.kv * c.sequences));
  if (c.type == GGML_TYPE_F32)
    std::copy_n(reinterpret_cast<const float*>(bytes.data()), values.size(), values.begin());
  else
    ggml_get_type_traits(c.type)->to_float(bytes.data(), values.data(), static_cast<std::int64_t>(values.size()));
  return values;
}

}  // namespace

bool parse_case(const std::string& text, AttentionCase& out) {
  std::istringstream words(text);
  std::string type;
  AttentionCase c;
  words >> type >> c.head_dim >> c.kv_heads >> c.group >> c.kv >> c.queries >> c.sequences;
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](ggml_type one) { return type == ggml_type_name(one); });
  if (!words || found == std::end(kTypes)) return false;
  c.type = *found;
  const std::int64_t numbers[] = {c.head_dim, c.kv_heads, c.group, c.kv, c.queries, c.sequences};
  if (*std::min_element(std::begin(numbers), std::end(numbers)) < 1 || *std::max_element(std::begin(numbers), std::end(numbers)) > (1 << 20)) return false;
  if (c.queries > c.kv || c.head_dim % 32 != 0) return false;
  out = c;
  return true;
}

Inputs make_inputs(const AttentionCase& c) {
  static const Normals normals;
  Inputs in;
  std::vector<float> values(static_cast<std::size_t>(c.row() * c.kv * c.sequences));
  normals.fill(values, 1);
  in.k = quantized(c, values);
  normals.fill(values, 2);
  in.v = quantized(c, values);
  in.q.resize(c.output_floats());
  normals.fill(in.q, 3);
  in.mask.resize(static_cast<std::size_t>(c.queries * c.kv));
  const ggml_fp16_t zero = ggml_fp32_to_fp16(0.0f), hidden = ggml_fp32_to_fp16(-std::numeric_limits<float>::infinity());
  for (std::int64_t query = 0; query < c.queries; ++query)
    for (std::int64_t key = 0; key < c.kv; ++key)
      in.mask[static_cast<std::size_t>(query * c.kv + key)] = key <= c.kv - c.queries + query ? zero : hidden;
  return in;
}

std::vector<std::pair<std::int64_t, std::int64_t>> sampled_queries(const AttentionCase& c) {
  const std::int64_t all = c.sequences * c.queries, count = std::min<std::int64_t>(8, all);
  std::vector<std::pair<std::int64_t, std::int64_t>> samples;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t place = count == 1 ? 0 : i * (all - 1) / (count - 1);
    samples.emplace_back(place / c.queries, place % c.queries);
  }
  return samples;
}

std::vector<float> reference_output(const AttentionCase& c, const Inputs& in) {
  const std::vector<float> k = decoded(c, in.k), v = decoded(c, in.v);
  const auto dim = static_cast<std::size_t>(c.head_dim);
  std::vector<float> out;
  std::vector<double> weights, sums(dim);
  for (const auto& [sequence, query] : sampled_queries(c)) {
    const auto seen = static_cast<std::size_t>(c.kv - c.queries + query + 1);
    for (std::int64_t head = 0; head < c.query_heads(); ++head) {
      const float* q = &in.q[static_cast<std::size_t>(((sequence * c.query_heads() + head) * c.queries + query) * c.head_dim)];
      const auto row_of = [&](const std::vector<float>& side, std::size_t key) {
        return &side[(static_cast<std::size_t>(sequence * c.kv) + key) * static_cast<std::size_t>(c.row()) + static_cast<std::size_t>(head / c.group) * dim];
      };
      weights.assign(seen, 0.0);
      for (std::size_t key = 0; key < seen; ++key) {
        const float* row = row_of(k, key);
        for (std::size_t i = 0; i < dim; ++i) weights[key] += double{q[i]} * double{row[i]};
        weights[key] /= std::sqrt(static_cast<double>(dim));
      }
      const double greatest = *std::max_element(weights.begin(), weights.end());
      double total = 0;
      for (double& weight : weights) total += weight = std::exp(weight - greatest);
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::size_t key = 0; key < seen; ++key) {
        const float* row = row_of(v, key);
        for (std::size_t i = 0; i < dim; ++i) sums[i] += weights[key] * double{row[i]};
      }
      for (const double sum : sums) out.push_back(static_cast<float>(sum / total));
    }
  }
  return out;
}

std::vector<float> sampled_output(const AttentionCase& c, const std::vector<float>& output) {
  std::vector<float> out;
  const std::size_t heads = static_cast<std::size_t>(c.query_heads() * c.head_dim);
  for (const auto& [sequence, query] : sampled_queries(c)) {
    const auto begin = output.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(sequence * c.queries + query) * heads);
    out.insert(out.end(), begin, begin + static_cast<std::ptrdiff_t>(heads));
  }
  return out;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::quiet_NaN();
  double error = 0, squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
    squares += double{b[i]} * double{b[i]};
  }
  return std::sqrt(error / squares);
}

}  // namespace kvant::peers
