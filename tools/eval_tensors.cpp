// The tensor-level figures of kvant eval: errors of K, V and the attention output on recorded and on made-up data.
#include <algorithm>
#include <cmath>
#include <random>

#include "eval.hpp"
#include "npy.hpp"

namespace kvant::tools {

ErrorFigures compare(const std::vector<float>& truth, const std::vector<float>& approximation) {
  double energy = 0, other = 0, product = 0, error = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double x = static_cast<double>(truth[i]);
    const double y = static_cast<double>(approximation[i]);
    energy += x * x;
    other += y * y;
    product += x * y;
    error += (x - y) * (x - y);
  }
  return {energy > 0 ? error / energy : 0, energy > 0 && other > 0 ? product / std::sqrt(energy * other) : 0};
}

namespace {

// softmax(q k / sqrt(d), causal) v for the last `queries` tokens of one layer, in double.
struct ExactAttention {
  uint32_t tokens, queries, kv_heads, q_heads, dim;

  void run(const float* k, const float* v, const float* q, float* out) const {
    const uint32_t group = q_heads / kv_heads;
    const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
    std::vector<double> weights(tokens);
    std::vector<double> sum_v(dim);
    for (uint32_t row = 0; row < queries; ++row) {
      const uint32_t visible = tokens - queries + row + 1;
      for (uint32_t head = 0; head < q_heads; ++head) {
        const float* query = q + (size_t{row} * q_heads + head) * dim;
        const size_t head_at = size_t{head / group} * dim;
        double largest = -INFINITY;
        for (uint32_t token = 0; token < visible; ++token) {
          const float* key = k + size_t{token} * kv_heads * dim + head_at;
          double dot = 0;
          for (uint32_t i = 0; i < dim; ++i) {
            dot += static_cast<double>(query[i]) * static_cast<double>(key[i]);
          }
          weights[token] = dot * scale;
          largest = std::max(largest, weights[token]);
        }
        double sum = 0;
        std::fill(sum_v.begin(), sum_v.end(), 0.0);
        for (uint32_t token = 0; token < visible; ++token) {
          const double weight = std::exp(weights[token] - largest);
          const float* value = v + size_t{token} * kv_heads * dim + head_at;
          sum += weight;
          for (uint32_t i = 0; i < dim; ++i) {
            sum_v[i] += weight * static_cast<double>(value[i]);
          }
        }
        for (uint32_t i = 0; i < dim; ++i) {
          out[(size_t{row} * q_heads + head) * dim + i] = static_cast<float>(sum_v[i] / sum);
        }
      }
    }
  }
};

// Aborts a step that was not committed.
struct OpenStep {
  Cache& cache;
  kvant_step* step = nullptr;
  ~OpenStep() {
    if (step != nullptr) {
      cache.api().step_abort(step);
    }
  }
};

}  // namespace

Outcome<TensorEval::Set> TensorEval::load_set(const std::string& folder, const std::string& name) {
  Set set;
  set.name = name;
  std::vector<NpyArray> arrays;
  for (const char* side : {"_k.npy", "_v.npy", "_q.npy"}) {
    const std::string path = folder + "/" + name + side;
    auto array = read_npy(path);
    if (!array.ok()) {
      return array.failure();
    }
    if (array->shape.size() != 4) {
      return bad_model(path + ": is not [layer][token][head][dim]");
    }
    arrays.push_back(std::move(*array));
  }
  const auto& k = arrays[0].shape;
  const auto& q = arrays[2].shape;
  if (arrays[1].shape != k || q[0] != k[0] || q[3] != k[3] || q[1] > k[1] || q[2] % k[2] != 0) {
    return bad_model(folder + ": the shapes of " + name + "_k, _v and _q do not belong together");
  }
  const auto narrow = [](uint64_t dim) { return static_cast<uint32_t>(dim); };
  set.layers = narrow(k[0]);
  set.tokens = narrow(k[1]);
  set.kv_heads = narrow(k[2]);
  set.head_dim = narrow(k[3]);
  set.queries = narrow(q[1]);
  set.q_heads = narrow(q[2]);
  set.k = std::move(arrays[0].values);
  set.v = std::move(arrays[1].values);
  set.q = std::move(arrays[2].values);
  set.output.resize(set.q.size());
  const ExactAttention exact{set.tokens, set.queries, set.kv_heads, set.q_heads, set.head_dim};
  for (uint32_t layer = 0; layer < set.layers; ++layer) {
    const size_t kv_at = layer * (set.k.size() / set.layers);
    const size_t q_at = layer * (set.q.size() / set.layers);
    exact.run(&set.k[kv_at], &set.v[kv_at], &set.q[q_at], &set.output[q_at]);
  }
  return set;
}

Outcome<TensorEval> TensorEval::load(const std::string& folder) {
  TensorEval eval;
  for (const char* name : {"text", "recall"}) {
    auto set = load_set(folder, name);
    if (!set.ok()) {
      return set.failure();
    }
    eval.sets_.push_back(std::move(*set));
  }
  return eval;
}

Outcome<TensorFigures> TensorEval::run_set(const std::shared_ptr<Device>& device, const FormatPair& pair,
                                           const Set& set) {
  auto created = Cache::create(device, {set.layers, set.kv_heads, set.head_dim, pair.k.id, pair.v.id, set.tokens});
  if (!created.ok()) {
    return created.failure();
  }
  Cache& cache = **created;
  const auto sequence = cache.create_sequence();
  if (!sequence.ok()) {
    return sequence.failure();
  }
  kvant_step_entry entry{};
  entry.struct_size = sizeof(entry);
  entry.sequence = *sequence;
  entry.append = set.tokens;
  entry.queries = set.queries;
  kvant_step_args step_args{};
  step_args.struct_size = sizeof(step_args);
  step_args.entry_count = 1;
  step_args.entries = &entry;
  OpenStep open{cache};
  KVANT_TRY(cache.check(cache.api().step_plan(cache.handle(), &step_args, &open.step)));
  const size_t kv_size = set.k.size() / set.layers;
  const size_t q_size = set.q.size() / set.layers;
  std::vector<float> output(set.q.size());
  for (uint32_t layer = 0; layer < set.layers; ++layer) {
    const kvant_tensor k = float_tensor(&set.k[layer * kv_size], kv_size);
    const kvant_tensor v = float_tensor(&set.v[layer * kv_size], kv_size);
    const kvant_tensor q = float_tensor(&set.q[layer * q_size], q_size);
    const kvant_tensor out = float_tensor(&output[layer * q_size], q_size);
    kvant_run_args run_args{};
    run_args.struct_size = sizeof(run_args);
    run_args.k = &k;
    run_args.v = &v;
    run_args.q = &q;
    run_args.out = &out;
    run_args.q_heads = set.q_heads;
    KVANT_TRY(cache.check(cache.api().step_run(open.step, layer, &run_args)));
  }
  KVANT_TRY(cache.check(cache.api().step_commit(open.step)));
  open.step = nullptr;

  // What the cache holds, read back.
  std::vector<float> held_k(set.k.size());
  std::vector<float> held_v(set.v.size());
  for (uint32_t layer = 0; layer < set.layers; ++layer) {
    for (const uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V}) {
      const kvant_tensor out = float_tensor(&(side == KVANT_SIDE_K ? held_k : held_v)[layer * kv_size], kv_size);
      KVANT_TRY(cache.check(cache.api().sequence_read(cache.handle(), *sequence, layer, side, 0, set.tokens, &out)));
    }
  }
  return TensorFigures{set.name, compare(set.k, held_k), compare(set.v, held_v), compare(set.output, output)};
}

Outcome<std::vector<TensorFigures>> TensorEval::run(const std::shared_ptr<Device>& device,
                                                    const FormatPair& pair) const {
  std::vector<TensorFigures> all;
  for (const Set& set : sets_) {
    auto figures = run_set(device, pair, set);
    if (!figures.ok()) {
      return figures.failure();
    }
    all.push_back(*figures);
  }
  return all;
}

namespace {

struct Synthetic {
  std::string name;
  uint32_t head_dim;
  uint64_t rows;
  uint64_t seed;
  float (*draw)(std::mt19937_64&);
};

float normal(std::mt19937_64& random) { return std::normal_distribution<float>()(random); }
float small_normal(std::mt19937_64& random) { return 0.01f * normal(random); }
float uniform(std::mt19937_64& random) { return std::uniform_real_distribution<float>(-1.0f, 1.0f)(random); }
float bimodal(std::mt19937_64& random) { return ((random() & 1) != 0 ? 2.0f : -2.0f) + 0.5f * normal(random); }

constexpr uint64_t kVectors = 4096;

// One page of a cache with 64 heads of 128, as held; a cache of 80 layers and 2048 tokens is so many of them.
Outcome<uint64_t> bytes_of_65b(const std::shared_ptr<Device>& device, const FormatFacts& format) {
  constexpr uint32_t kHeads = 64, kDim = 128, kTokens = 16;
  constexpr uint64_t kLayers = 80, kContext = 2048;
  auto created = Cache::create(device, {1, kHeads, kDim, format.id, format.id, kTokens});
  if (!created.ok()) {
    return created.failure();
  }
  Cache& cache = **created;
  const auto sequence = cache.create_sequence();
  if (!sequence.ok()) {
    return sequence.failure();
  }
  kvant_step_entry entry{};
  entry.struct_size = sizeof(entry);
  entry.sequence = *sequence;
  entry.append = kTokens;
  kvant_step_args step_args{};
  step_args.struct_size = sizeof(step_args);
  step_args.entry_count = 1;
  step_args.entries = &entry;
  OpenStep open{cache};
  KVANT_TRY(cache.check(cache.api().step_plan(cache.handle(), &step_args, &open.step)));
  const std::vector<float> data(size_t{kTokens} * kHeads * kDim, 1.0f);
  const kvant_tensor tensor = float_tensor(data.data(), data.size());
  kvant_run_args run_args{};
  run_args.struct_size = sizeof(run_args);
  run_args.k = &tensor;
  run_args.v = &tensor;
  KVANT_TRY(cache.check(cache.api().step_run(open.step, 0, &run_args)));
  KVANT_TRY(cache.check(cache.api().step_commit(open.step)));
  open.step = nullptr;
  const auto stats = cache.stats();
  if (!stats.ok()) {
    return stats.failure();
  }
  return stats->used_bytes * (kContext / kTokens) * kLayers;
}

}  // namespace

Outcome<SyntheticFigures> eval_synthetic(const std::shared_ptr<Device>& device, const FormatFacts& format) {
  static const Synthetic kSets[] = {{"normal", 128, kVectors, 1, normal},
                                    {"small (x 0.01)", 128, kVectors, 2, small_normal},
                                    {"uniform", 128, kVectors, 3, uniform},
                                    {"bimodal", 128, kVectors, 4, bimodal},
                                    {"normal [2,32,512,64]", 64, 2 * 32 * 512, 5, normal}};
  SyntheticFigures figures;
  figures.format = format;
  const kvant_api& api = device->api();
  for (const Synthetic& set : kSets) {
    std::mt19937_64 random(set.seed);
    std::vector<float> data(static_cast<size_t>(set.rows) * set.head_dim);
    std::generate(data.begin(), data.end(), [&] { return set.draw(random); });
    uint64_t row_bytes = 0;
    KVANT_TRY(device->check(api.row_bytes(device->library()->context(), format.id, set.head_dim, &row_bytes)));
    std::vector<unsigned char> encoded(static_cast<size_t>(row_bytes * set.rows));
    std::vector<float> decoded(data.size());
    KVANT_TRY(device->check(api.quantize(device->handle(), format.id, set.head_dim, set.rows, data.data(),
                                         data.size() * sizeof(float), encoded.data(), encoded.size())));
    KVANT_TRY(device->check(api.dequantize(device->handle(), format.id, set.head_dim, set.rows, encoded.data(),
                                           encoded.size(), decoded.data(), decoded.size() * sizeof(float))));
    figures.sets.emplace_back(set.name, compare(data, decoded));
  }
  const auto bytes = bytes_of_65b(device, format);
  if (!bytes.ok()) {
    return bytes.failure();
  }
  figures.bytes_65b = *bytes;
  return figures;
}

}  // namespace kvant::tools
