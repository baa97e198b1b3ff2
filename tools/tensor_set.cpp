// Two steps a set: one that appends everything, and one for each time that its queries attend.
#include "tensor_set.hpp"

#include <algorithm>
#include <cmath>

namespace kvant::tools {

void attention_weights(const TensorSet& set, const std::vector<float>& k, size_t row, std::span<double> weights) {
  const uint32_t dim = set.head_dim;
  const size_t head = row % set.q_heads;
  const auto query_at = static_cast<uint32_t>(row / set.q_heads % set.queries);
  const size_t layer = row / set.q_heads / set.queries;
  const float* const query = &set.q[row * dim];
  const float* key = &k[layer * set.kv_size() + head / (set.q_heads / set.kv_heads) * dim];
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  const uint32_t visible = set.visible(query_at);
  double largest = -INFINITY;
  for (uint32_t token = 0; token < visible; ++token, key += size_t{set.kv_heads} * dim) {
    // Four sums, so that one addition need not wait for another. All head sizes are multiples of 8.
    double sums[4] = {};
    for (uint32_t i = 0; i < dim; i += 4) {
      for (uint32_t lane = 0; lane < 4; ++lane) {
        sums[lane] += static_cast<double>(query[i + lane]) * static_cast<double>(key[i + lane]);
      }
    }
    weights[token] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * scale;
    largest = std::max(largest, weights[token]);
  }
  double sum = 0;
  for (uint32_t token = 0; token < visible; ++token) {
    weights[token] = std::exp(weights[token] - largest);
    sum += weights[token];
  }
  for (uint32_t token = 0; token < visible; ++token) {
    weights[token] /= sum;
  }
  std::fill(weights.begin() + visible, weights.end(), 0.0);
}

std::vector<float> exact_attention(const TensorSet& set) {
  const uint32_t dim = set.head_dim;
  std::vector<float> output(set.q.size());
  std::vector<double> weights(set.tokens), sum(dim);
  for (size_t row = 0; row < set.rows(); ++row) {
    attention_weights(set, set.k, row, weights);
    const size_t layer = row / set.q_heads / set.queries;
    const float* value = &set.v[layer * set.kv_size() + row % set.q_heads / (set.q_heads / set.kv_heads) * dim];
    std::fill(sum.begin(), sum.end(), 0.0);
    for (uint32_t token = 0; token < set.tokens; ++token, value += size_t{set.kv_heads} * dim) {
      for (uint32_t i = 0; i < dim; ++i) {
        sum[i] += weights[token] * static_cast<double>(value[i]);
      }
    }
    for (uint32_t i = 0; i < dim; ++i) {
      output[row * dim + i] = static_cast<float>(sum[i]);
    }
  }
  return output;
}

namespace {

// Aborts a step that was not committed.
struct OpenStep {
  Cache& cache;
  kvant_step* step = nullptr;
  ~OpenStep() {
    if (step != nullptr) {
      cache.api().step_abort(step);
    }
  }

  Outcome<void> plan(const kvant_step_entry& entry) {
    kvant_step_args args{};
    args.struct_size = sizeof(args);
    args.entry_count = 1;
    args.entries = &entry;
    return cache.check(cache.api().step_plan(cache.handle(), &args, &step));
  }
  Outcome<void> commit() {
    KVANT_TRY(cache.check(cache.api().step_commit(step)));
    step = nullptr;
    return {};
  }
};

}  // namespace

Outcome<HeldSet> HeldSet::fill(const std::shared_ptr<Device>& device, const FormatPair& pair, const TensorSet& set) {
  auto created = Cache::create(device, cache_shape(pair, set.layers, set.kv_heads, set.head_dim, set.tokens));
  if (!created.ok()) {
    return created.failure();
  }
  HeldSet held;
  held.cache_ = *created;
  const auto sequence = held.cache_->create_sequence();
  if (!sequence.ok()) {
    return sequence.failure();
  }
  held.sequence_ = *sequence;
  kvant_step_entry entry{};
  entry.struct_size = sizeof(entry);
  entry.sequence = held.sequence_;
  entry.append = set.tokens;
  OpenStep open{*held.cache_};
  KVANT_TRY(open.plan(entry));
  for (uint32_t layer = 0; layer < set.layers; ++layer) {
    const kvant_tensor k = float_tensor(&set.k[layer * set.kv_size()], set.kv_size());
    const kvant_tensor v = float_tensor(&set.v[layer * set.kv_size()], set.kv_size());
    kvant_run_args args{};
    args.struct_size = sizeof(args);
    args.k = &k;
    args.v = &v;
    KVANT_TRY(held.cache_->check(held.cache_->api().step_run(open.step, layer, &args)));
  }
  KVANT_TRY(open.commit());
  return held;
}

Outcome<std::vector<float>> HeldSet::attend(const TensorSet& set, std::span<const uint32_t> mask,
                                            std::vector<float>* lse) {
  kvant_step_entry entry{};
  entry.struct_size = sizeof(entry);
  entry.sequence = sequence_;
  entry.queries = set.queries;
  if (!mask.empty()) {
    entry.mask = mask.data();
    entry.mask_row_words = mask_words(set);
  }
  OpenStep open{*cache_};
  KVANT_TRY(open.plan(entry));
  const size_t layer_rows = set.rows() / set.layers;
  std::vector<float> output(set.q.size());
  if (lse != nullptr) {
    lse->resize(set.rows());
  }
  for (uint32_t layer = 0; layer < set.layers; ++layer) {
    const kvant_tensor q = float_tensor(&set.q[layer * set.q_size()], set.q_size());
    const kvant_tensor out = float_tensor(&output[layer * set.q_size()], set.q_size());
    kvant_tensor sums{};
    kvant_run_args args{};
    args.struct_size = sizeof(args);
    args.q = &q;
    args.out = &out;
    args.q_heads = set.q_heads;
    if (lse != nullptr) {
      sums = float_tensor(&(*lse)[layer * layer_rows], layer_rows);
      args.lse = &sums;
    }
    KVANT_TRY(cache_->check(cache_->api().step_run(open.step, layer, &args)));
  }
  KVANT_TRY(open.commit());
  return output;
}

Outcome<std::vector<float>> HeldSet::read(const TensorSet& set, uint32_t side) {
  std::vector<float> held(set.layers * set.kv_size());
  for (uint32_t layer = 0; layer < set.layers; ++layer) {
    const kvant_tensor out = float_tensor(&held[layer * set.kv_size()], set.kv_size());
    KVANT_TRY(
        cache_->check(cache_->api().sequence_read(cache_->handle(), sequence_, layer, side, 0, set.tokens, &out)));
  }
  return held;
}

Outcome<uint64_t> HeldSet::used_bytes() {
  const auto stats = cache_->stats();
  if (!stats.ok()) {
    return stats.failure();
  }
  return stats->used_bytes;
}

}  // namespace kvant::tools
