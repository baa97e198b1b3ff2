// kvant eval's attention over made-up keys: what quantized keys and values do to its output, and keys alone to its
// weights.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "eval.hpp"
#include "made_up.hpp"

namespace kvant::tools {

namespace {

// Diffuse attention, and attention that picks a few keys.
constexpr double kLogitStds[] = {1.0, 3.0};
constexpr uint32_t kTaus = std::size(kLogitStds);

double deviation(const std::vector<double>& values) {
  const double count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double sum = 0;
  for (const double value : values) {
    sum += (value - mean) * (value - mean);
  }
  return std::sqrt(sum / count);
}

// Scales each row of one layer's queries [query][tau][dim] so that its logits over `keys` deviate as kLogitStds says.
void set_deviations(const float* keys, float* queries, uint32_t key_count, uint32_t query_count, uint32_t dim) {
  std::vector<double> logits(key_count);
  for (size_t row = 0; row < size_t{query_count} * kTaus; ++row) {
    float* const query = queries + row * dim;
    for (uint32_t token = 0; token < key_count; ++token) {
      const float* const key = keys + size_t{token} * dim;
      double dot = 0;
      for (uint32_t i = 0; i < dim; ++i) {
        dot += static_cast<double>(query[i]) * static_cast<double>(key[i]);
      }
      logits[token] = dot / std::sqrt(static_cast<double>(dim));
    }
    const double scale = kLogitStds[row % kTaus] / deviation(logits);
    for (uint32_t i = 0; i < dim; ++i) {
      query[i] = static_cast<float>(static_cast<double>(query[i]) * scale);
    }
  }
}

}  // namespace

AttentionEval::Prepared AttentionEval::prepare(uint32_t keys, uint32_t queries, uint32_t head_dim) {
  Prepared prepared;
  TensorSet& set = prepared.tensors;
  set.tokens = keys;
  set.kv_heads = 1;
  set.head_dim = head_dim;
  set.queries = queries;
  set.q_heads = kTaus;
  for (const MadeUp& data : made_up()) {
    // The others change nothing for attention but its scale, or are no keys.
    if (!data.keys && data.name != "normal" && data.name != "heavy-tailed (t3)") {
      continue;
    }
    const std::vector<float> k = draw(data, keys, head_dim);
    const std::vector<float> v = normal_values(100 + head_dim, set.kv_size());
    const std::vector<float> directions = normal_values(200 + data.seed, size_t{queries} * head_dim);
    std::vector<float> q;
    for (uint32_t query = 0; query < queries; ++query) {
      for (uint32_t tau = 0; tau < kTaus; ++tau) {
        q.insert(q.end(), directions.begin() + query * head_dim, directions.begin() + (query + 1) * head_dim);
      }
    }
    set_deviations(k.data(), q.data(), keys, queries, head_dim);
    set.k.insert(set.k.end(), k.begin(), k.end());
    set.v.insert(set.v.end(), v.begin(), v.end());
    set.q.insert(set.q.end(), q.begin(), q.end());
    prepared.names.push_back(data.name);
    ++set.layers;
  }
  prepared.output = exact_attention(set);
  prepared.weights.resize(set.rows() * keys);
  for (size_t row = 0; row < set.rows(); ++row) {
    attention_weights(set, set.k, row, {&prepared.weights[row * keys], keys});
  }
  return prepared;
}

AttentionEval AttentionEval::make(bool quick) {
  AttentionEval eval;
  eval.sets_.push_back(quick ? prepare(1024, 64, 128) : prepare(4096, 128, 128));
  if (!quick) {
    eval.sets_.push_back(prepare(4096, 128, 64));
  }
  return eval;
}

Outcome<std::vector<AttentionFigures>> AttentionEval::run(const std::shared_ptr<Device>& device,
                                                          const FormatPair& pair) const {
  std::vector<AttentionFigures> all;
  for (const Prepared& prepared : sets_) {
    const TensorSet& set = prepared.tensors;
    auto held = HeldSet::fill(device, pair, set);
    if (!held.ok()) {
      return held.failure();
    }
    const auto output = held->attend(set);
    if (!output.ok()) {
      return output.failure();
    }
    const auto k = held->read(set, KVANT_SIDE_K);
    if (!k.ok()) {
      return k.failure();
    }
    const size_t first = all.size();
    for (uint32_t layer = 0; layer < set.layers; ++layer) {
      const size_t at = layer * set.kv_size(), size = set.kv_size();
      const double key_error =
          centred_error(std::span(set.k).subspan(at, size), std::span(*k).subspan(at, size), set.head_dim);
      for (const double logit_std : kLogitStds) {
        all.push_back({prepared.names[layer], set.head_dim, logit_std, key_error, 0, 0, 0});
      }
    }
    std::vector<double> weights(set.tokens);
    for (size_t row = 0; row < set.rows(); ++row) {
      AttentionFigures& figures = all[first + row / (size_t{set.queries} * kTaus) * kTaus + row % kTaus];
      attention_weights(set, *k, row, weights);
      const auto exact = std::span(prepared.weights).subspan(row * set.tokens, set.tokens);
      double divergence = 0;
      for (uint32_t token = 0; token < set.tokens; ++token) {
        if (exact[token] > 0) {
          // Weights below the smallest double count as it.
          divergence += exact[token] * std::log(exact[token] / std::max(weights[token], 1e-300));
        }
      }
      double error = 0, energy = 0;
      for (size_t i = row * set.head_dim; i < (row + 1) * set.head_dim; ++i) {
        const double truth = static_cast<double>(prepared.output[i]);
        const double difference = static_cast<double>((*output)[i]) - truth;
        error += difference * difference;
        energy += truth * truth;
      }
      const bool same = std::max_element(exact.begin(), exact.end()) - exact.begin() ==
                        std::max_element(weights.begin(), weights.end()) - weights.begin();
      figures.key_divergence += std::max(divergence, 0.0) / set.queries;
      figures.output_error += std::sqrt(error / energy) / set.queries;
      figures.top1_agreement += (same ? 1.0 : 0.0) / set.queries;
    }
  }
  return all;
}

}  // namespace kvant::tools
