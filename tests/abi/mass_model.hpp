// A cache with attention mass beside a model of it: what each query saw is remembered, and its softmax is computed in
// double.
#pragma once

#include <kvant/kvant_ext_manager.h>

#include <cmath>
#include <limits>
#include <map>

#include "library.hpp"

namespace abi_test {

inline const kvant_ext_manager& manager_of(const Session& session) {
  const auto* table = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(table != nullptr);
  return *table;
}

struct MassLayer {
  std::uint32_t kv_heads, head_dim;
  const char* format;
  std::uint32_t window = 0, window_sinks = 0;
};

class MassCache {
 public:
  static constexpr std::uint32_t kQueryHeads = 4;

  MassCache(const Session& session, std::vector<MassLayer> shape, std::uint64_t capacity, std::uint64_t slab_bytes = 0)
      : manager(manager_of(session)), layers(std::move(shape)) {
    std::vector<kvant_layer_args> specs;
    for (const MassLayer& layer : layers) {
      auto spec = make<kvant_layer_args>();
      spec.kv_heads = layer.kv_heads;
      spec.head_dim_k = layer.head_dim;
      spec.format_k = spec.format_v = session.format(layer.format);
      spec.window = layer.window;
      spec.window_sinks = layer.window_sinks;
      specs.push_back(spec);
    }
    auto args = make<kvant_cache_args>();
    args.layer_count = static_cast<std::uint32_t>(specs.size());
    args.layers = specs.data();
    args.capacity_tokens = capacity;
    args.flags = KVANT_CACHE_MASS;
    args.slab_bytes = slab_bytes;
    require_ok(api().cache_create(session.device, &args, &cache));
  }
  ~MassCache() { api().cache_destroy(cache); }
  MassCache(const MassCache&) = delete;
  MassCache& operator=(const MassCache&) = delete;

  kvant_sequence create() const {
    kvant_sequence sequence = 0;
    require_ok(api().sequence_create(cache, &sequence));
    return sequence;
  }

  kvant_step* plan(kvant_sequence sequence, std::uint32_t append, std::uint32_t queries) const {
    auto entry = make<kvant_step_entry>();
    entry.sequence = sequence;
    entry.append = append;
    entry.queries = queries;
    auto args = make<kvant_step_args>();
    args.entry_count = 1;
    args.entries = &entry;
    kvant_step* step = nullptr;
    require_ok(api().step_plan(cache, &args, &step));
    return step;
  }

  // A layer of a step, with K, V and Q of `seed`.
  kvant_error* run(kvant_step* step, std::uint32_t layer, std::uint32_t append, std::uint32_t queries,
                   std::uint32_t flags) {
    const MassLayer& shape = layers[layer];
    data_ = StepData();
    if (append != 0) {
      data_.k = random_floats(append * shape.kv_heads * shape.head_dim, seed_ * 100 + layer * 3, 2.0F);
      data_.v = random_floats(append * shape.kv_heads * shape.head_dim, seed_ * 100 + layer * 3 + 1);
      if (name_tokens)
        for (std::size_t i = 0; i < data_.v.size(); ++i) {
          const std::size_t token = first_ + i / (std::size_t{shape.kv_heads} * shape.head_dim);
          data_.v[i] = (token >> i % 16 & 1) != 0 ? 1.0F : -1.0F;
        }
    }
    if (queries != 0) {
      data_.q = random_floats(queries * kQueryHeads * shape.head_dim, seed_ * 100 + layer * 3 + 2, 2.0F);
      data_.out.assign(data_.q.size(), 0.0F);
      data_.q_heads = kQueryHeads;
      data_.sinks = sinks;
      data_.slopes = slopes;
    }
    data_.flags = flags;
    std::vector<kvant_tensor> tensors;
    const kvant_run_args args = run_args_of(data_, tensors);
    return api().step_run(step, layer, &args);
  }

  // A step of all layers with fresh data; `repeat`: with the data of the step before.
  void step(kvant_sequence sequence, std::uint32_t append, std::uint32_t queries, std::uint32_t flags) {
    ++seed_;
    repeat(sequence, append, queries, flags);
  }
  void repeat(kvant_sequence sequence, std::uint32_t append, std::uint32_t queries, std::uint32_t flags) {
    require_ok(api().sequence_length(cache, sequence, &first_));
    kvant_step* const planned = plan(sequence, append, queries);
    outs_.clear();
    last_out.clear();
    std::vector<std::vector<float>> q;
    for (std::uint32_t layer = 0; layer < layers.size(); ++layer) {
      require_ok(run(planned, layer, append, queries, flags));
      outs_.push_back(data_.out);
      last_out.insert(last_out.end(), data_.out.begin(), data_.out.end());
      q.push_back(data_.q);
      std::vector<float>& keys = keys_[{sequence, layer}];
      if (layers[layer].window != 0) keys.insert(keys.end(), data_.k.begin(), data_.k.end());
    }
    require_ok(api().step_commit(planned));
    if ((flags & KVANT_RUN_MASS) != 0)
      seen_[sequence].push_back({std::move(q), first_ + append, queries, (flags & KVANT_RUN_NON_CAUSAL) == 0, sinks});
  }
  // A step that was run elsewhere, with one Q for all layers.
  void remember(kvant_sequence sequence, const std::vector<std::vector<float>>& keys, const std::vector<float>& q,
                std::uint64_t tokens, std::uint32_t queries, bool causal) {
    for (std::uint32_t layer = 0; layer < layers.size(); ++layer) keys_[{sequence, layer}] = keys[layer];
    seen_[sequence].push_back({std::vector(layers.size(), q), tokens, queries, causal, {}});
  }
  // The queries so far; places have changed.
  void forget(kvant_sequence sequence) { seen_[sequence].clear(); }

  bool has_head(std::uint32_t layer, std::uint32_t head) const {
    for (std::uint32_t l = 0; l < layers.size(); ++l)
      if ((layer == KVANT_MASS_ALL || layer == l) && head >= layers[l].kv_heads) return false;
    return true;
  }

  std::vector<float> masses(kvant_sequence sequence, std::uint32_t layer, std::uint32_t head) const {
    std::uint64_t length = 0;
    require_ok(api().sequence_length(cache, sequence, &length));
    std::vector<float> out(length, -1.0F);
    require_ok(manager.sequence_mass(cache, sequence, layer, head, 0, length, out.data()));
    return out;
  }

  // What masses() should give; the mean over all rows that are asked for.
  std::vector<double> expected(kvant_sequence sequence, std::uint32_t layer, std::uint32_t head) const {
    std::vector<double> sum;
    double rows = 0;
    for (std::uint32_t l = 0; l < layers.size(); ++l) {
      if (layer != KVANT_MASS_ALL && layer != l) continue;
      const std::vector<float> keys = keys_of(sequence, l);
      for (std::uint32_t h = 0; h < layers[l].kv_heads; ++h) {
        if (head != KVANT_MASS_ALL && head != h) continue;
        add_row(sequence, l, h, keys, sum);
        ++rows;
      }
    }
    for (double& mass : sum) mass /= rows;
    return sum;
  }

  std::vector<float> out_of(std::uint32_t layer) const { return outs_[layer]; }

  // Which tokens the rows of V are, with name_tokens.
  std::vector<std::uint64_t> named_tokens(kvant_sequence sequence, std::uint32_t layer) const {
    const std::vector<float> values = read(sequence, layer, KVANT_SIDE_V);
    const std::size_t row = std::size_t{layers[layer].kv_heads} * layers[layer].head_dim;
    std::vector<std::uint64_t> tokens(values.size() / row, 0);
    for (std::size_t t = 0; t < tokens.size(); ++t)
      for (std::size_t bit = 0; bit < 16; ++bit)
        if (values[t * row + bit] > 0.0F) tokens[t] |= std::uint64_t{1} << bit;
    return tokens;
  }

  const kvant_ext_manager& manager;
  kvant_cache* cache = nullptr;
  std::vector<MassLayer> layers;
  std::vector<float> sinks, slopes, last_out;  // sinks and slopes of the steps that follow
  bool name_tokens = false;

 private:
  struct Seen {
    std::vector<std::vector<float>> q;  // per layer
    std::uint64_t tokens;
    std::uint32_t queries;
    bool causal;
    std::vector<float> sinks;
  };

  std::vector<float> read(kvant_sequence sequence, std::uint32_t layer, std::uint32_t side) const {
    std::uint64_t length = 0;
    require_ok(api().sequence_length(cache, sequence, &length));
    std::vector<float> data(length * layers[layer].kv_heads * layers[layer].head_dim);
    kvant_tensor out = tensor_of(data);
    require_ok(api().sequence_read(cache, sequence, layer, side, 0, length, &out));
    return data;
  }
  // As stored; those of a window, whose pages may be gone, as they came.
  std::vector<float> keys_of(kvant_sequence sequence, std::uint32_t layer) const {
    return layers[layer].window != 0 ? keys_.at({sequence, layer}) : read(sequence, layer, KVANT_SIDE_K);
  }

  void add_row(kvant_sequence sequence, std::uint32_t l, std::uint32_t h, const std::vector<float>& keys,
               std::vector<double>& sum) const {
    const MassLayer& shape = layers[l];
    const std::size_t dim = shape.head_dim, row = shape.kv_heads * dim;
    sum.resize(keys.size() / row, 0.0);
    const std::uint32_t group = kQueryHeads / shape.kv_heads;
    const auto seen = seen_.find(sequence);
    if (seen == seen_.end()) return;
    for (const Seen& step : seen->second)
      for (std::uint32_t query = 0; query < step.queries; ++query)
        for (std::uint32_t g = h * group; g < (h + 1) * group; ++g) {
          const std::uint64_t position = step.tokens - step.queries + query;
          std::vector<double> weights(step.tokens, 0.0);
          double total = step.sinks.empty() ? 0.0 : std::exp(static_cast<double>(step.sinks[g]));
          for (std::uint64_t t = 0; t < step.tokens; ++t) {
            if (step.causal && t > position) continue;
            if (shape.window != 0 && t + shape.window <= position && t >= shape.window_sinks) continue;
            double dot = 0.0;
            for (std::size_t i = 0; i < dim; ++i)
              dot += static_cast<double>(step.q[l][(query * kQueryHeads + g) * dim + i]) *
                     static_cast<double>(keys[t * row + h * dim + i]);
            total += weights[t] = std::exp(dot / std::sqrt(static_cast<double>(dim)));
          }
          for (std::uint64_t t = 0; t < step.tokens; ++t) sum[t] += weights[t] / total / group;
        }
  }

  std::uint32_t seed_ = 0;
  std::uint64_t first_ = 0;
  StepData data_;
  std::vector<std::vector<float>> outs_;
  std::map<std::pair<kvant_sequence, std::uint32_t>, std::vector<float>> keys_;
  std::map<kvant_sequence, std::vector<Seen>> seen_;
};

}  // namespace abi_test
