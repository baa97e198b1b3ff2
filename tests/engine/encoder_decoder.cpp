// A small encoder-decoder with random weights: the encoder's attention (not causal), the decoder's self-attention
// (causal, token by token) and its cross-attention (over the encoder's keys, appended once) all go through the plugin;
// plain double checks them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "test_device.hpp"

namespace {

using namespace kvant::tools;

constexpr uint32_t kHeads = 4, kKvHeads = 2, kDim = 40, kWidth = kHeads * kDim;
constexpr uint32_t kSource = 37, kTarget = 21;

using Matrix = std::vector<float>;  // row-major

Matrix random_matrix(size_t rows, size_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(columns)));
  Matrix matrix(rows * columns);
  std::generate(matrix.begin(), matrix.end(), [&] { return normal(random); });
  return matrix;
}

// x [rows][in] times w [out][in] transposed.
template <typename T>
std::vector<T> project(const std::vector<T>& x, const Matrix& w, size_t in, size_t out) {
  const size_t rows = x.size() / in;
  std::vector<T> y(rows * out);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < out; ++o) {
      double sum = 0;
      for (size_t i = 0; i < in; ++i) {
        sum += static_cast<double>(x[r * in + i]) * static_cast<double>(w[o * in + i]);
      }
      y[r * out + o] = static_cast<T>(sum);
    }
  }
  return y;
}

struct Weights {
  Matrix q, k, v, o;
  explicit Weights(uint32_t seed)
      : q(random_matrix(kWidth, kWidth, seed)),
        k(random_matrix(kKvHeads * kDim, kWidth, seed + 1)),
        v(random_matrix(kKvHeads * kDim, kWidth, seed + 2)),
        o(random_matrix(kWidth, kWidth, seed + 3)) {}
};

struct Model {
  Weights encoder{10}, self{20}, cross{30};
  Matrix source = random_matrix(kSource, kWidth, 1);
  Matrix target = random_matrix(kTarget, kWidth, 2);

  Model() {
    for (Matrix* m : {&source, &target}) {
      for (float& x : *m) {
        x *= std::sqrt(static_cast<float>(kWidth));
      }
    }
  }
};

// ---- plain reference, in double ----

std::vector<double> widen(const Matrix& m) { return {m.begin(), m.end()}; }

std::vector<double> plain_attention(const std::vector<double>& x, const std::vector<double>& memory, const Weights& w,
                                    bool causal) {
  const auto q = project(x, w.q, kWidth, kWidth);
  const auto k = project(memory, w.k, kWidth, kKvHeads * kDim);
  const auto v = project(memory, w.v, kWidth, kKvHeads * kDim);
  const size_t rows = x.size() / kWidth, keys = memory.size() / kWidth;
  std::vector<double> out(q.size(), 0.0);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t h = 0; h < kHeads; ++h) {
      const size_t kv = h / (kHeads / kKvHeads);
      double sum = 0;
      for (size_t t = 0; t < (causal ? r + 1 : keys); ++t) {
        double dot = 0;
        for (size_t i = 0; i < kDim; ++i) {
          dot += q[r * kWidth + h * kDim + i] * k[(t * kKvHeads + kv) * kDim + i];
        }
        const double weight = std::exp(dot / std::sqrt(static_cast<double>(kDim)));
        sum += weight;
        for (size_t i = 0; i < kDim; ++i) {
          out[r * kWidth + h * kDim + i] += weight * v[(t * kKvHeads + kv) * kDim + i];
        }
      }
      for (size_t i = 0; i < kDim; ++i) {
        out[r * kWidth + h * kDim + i] /= sum;
      }
    }
  }
  return project(out, w.o, kWidth, kWidth);
}

std::vector<double> add(std::vector<double> a, const std::vector<double>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] += b[i];
  }
  return a;
}

std::vector<double> plain_forward(const Model& m) {
  const auto source = widen(m.source);
  const auto memory = add(source, plain_attention(source, source, m.encoder, false));
  const auto target = widen(m.target);
  const auto x = add(target, plain_attention(target, target, m.self, true));
  return add(x, plain_attention(x, memory, m.cross, false));
}

// ---- the same through the plugin: a cache of one layer for each attention ----

class PluginAttention {
 public:
  PluginAttention(const std::shared_ptr<Device>& device, const Weights& weights, uint32_t format, uint32_t capacity)
      : weights_(weights) {
    auto cache = Cache::create(device, {1, kKvHeads, kDim, format, format, capacity});
    REQUIRE_MESSAGE(cache.ok(), cache.failure().message);
    cache_ = *cache;
    const auto sequence = cache_->create_sequence();
    REQUIRE_MESSAGE(sequence.ok(), sequence.failure().message);
    sequence_ = *sequence;
  }

  // Keys and values of `memory` go in (may be empty), then the rows of `x` attend; the attention's own output
  // projection follows.
  Matrix run(const Matrix& x, const Matrix& memory, uint32_t flags) {
    const Matrix q = project(x, weights_.q, kWidth, kWidth);
    const Matrix k = project(memory, weights_.k, kWidth, kKvHeads * kDim);
    const Matrix v = project(memory, weights_.v, kWidth, kKvHeads * kDim);
    kvant_step_entry entry{};
    entry.struct_size = sizeof(entry);
    entry.sequence = sequence_;
    entry.append = static_cast<uint32_t>(memory.size() / kWidth);
    entry.queries = static_cast<uint32_t>(x.size() / kWidth);
    kvant_step_args step_args{};
    step_args.struct_size = sizeof(step_args);
    step_args.entry_count = 1;
    step_args.entries = &entry;
    kvant_step* step = nullptr;
    require(cache_->api().step_plan(cache_->handle(), &step_args, &step));
    Matrix out(q.size());
    const kvant_tensor k_tensor = float_tensor(k.data(), k.size());
    const kvant_tensor v_tensor = float_tensor(v.data(), v.size());
    const kvant_tensor q_tensor = float_tensor(q.data(), q.size());
    const kvant_tensor out_tensor = float_tensor(out.data(), out.size());
    kvant_run_args run{};
    run.struct_size = sizeof(run);
    run.k = k.empty() ? nullptr : &k_tensor;
    run.v = v.empty() ? nullptr : &v_tensor;
    run.q = &q_tensor;
    run.out = &out_tensor;
    run.q_heads = kHeads;
    run.flags = flags;
    require(cache_->api().step_run(step, 0, &run));
    require(cache_->api().step_commit(step));
    return project(out, weights_.o, kWidth, kWidth);
  }

 private:
  void require(kvant_error* error) {
    const auto outcome = cache_->check(error);
    REQUIRE_MESSAGE(outcome.ok(), outcome.failure().message);
  }

  const Weights& weights_;
  std::shared_ptr<Cache> cache_;
  kvant_sequence sequence_ = 0;
};

Matrix add(Matrix a, const Matrix& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] += b[i];
  }
  return a;
}

Matrix plugin_forward(const Model& m, const std::shared_ptr<Device>& device, uint32_t format) {
  PluginAttention encoder(device, m.encoder, format, kSource);
  PluginAttention self(device, m.self, format, kTarget);
  PluginAttention cross(device, m.cross, format, kSource);
  const Matrix memory = add(m.source, encoder.run(m.source, m.source, KVANT_RUN_NON_CAUSAL));
  Matrix output;
  for (uint32_t token = 0; token < kTarget; ++token) {
    const Matrix target(m.target.begin() + token * kWidth, m.target.begin() + (token + 1) * kWidth);
    const Matrix x = add(target, self.run(target, target, 0));
    // The encoder's keys and values go in with the first token and stay.
    const Matrix y = add(x, cross.run(x, token == 0 ? memory : Matrix(), KVANT_RUN_NON_CAUSAL));
    output.insert(output.end(), y.begin(), y.end());
  }
  return output;
}

double relative_error(const std::vector<double>& truth, const Matrix& other) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    error += (truth[i] - static_cast<double>(other[i])) * (truth[i] - static_cast<double>(other[i]));
    energy += truth[i] * truth[i];
  }
  return std::sqrt(error / energy);
}

}  // namespace

TEST_CASE("encoder-decoder: self- and cross-attention through the plugin" * doctest::test_suite("long")) {
  const auto device = open_test_device();
  if (device == nullptr) {
    return;
  }
  const Model model;
  const auto truth = plain_forward(model);
  const auto error = [&](const char* name) {
    const auto format = device->library()->format(name);
    REQUIRE(format.ok());
    return relative_error(truth, plugin_forward(model, device, format->id));
  };
  CHECK(error("f32") < 1e-6);
  const double f16 = error("f16"), q8_0 = error("q8_0"), q4_0 = error("q4_0");
  CHECK(f16 < 5e-4);
  CHECK(q8_0 < 1e-2);
  CHECK(q4_0 < 0.1);
  CHECK(f16 < q8_0);
  CHECK(q8_0 < q4_0);

  // The check itself tells a wrong rule from the right one: a causal cross-attention is far off.
  PluginAttention causal(device, model.encoder, 0, kSource);
  const auto wrong = causal.run(model.source, model.source, 0);
  CHECK(relative_error(plain_attention(widen(model.source), widen(model.source), model.encoder, false), wrong) > 0.1);
  check_quiet(*device);
}
