// The tensor-level figures of kvant eval on what was recorded from the model: errors of K, V and the attention output.
#include <cmath>

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

double centred_error(std::span<const float> keys, std::span<const float> approximation, uint32_t head_dim) {
  std::vector<double> mean(head_dim);
  const double rows = static_cast<double>(keys.size() / head_dim);
  for (size_t i = 0; i < keys.size(); ++i) {
    mean[i % head_dim] += static_cast<double>(keys[i]) / rows;
  }
  double energy = 0, error = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    const double x = static_cast<double>(keys[i]);
    const double difference = x - static_cast<double>(approximation[i]);
    energy += (x - mean[i % head_dim]) * (x - mean[i % head_dim]);
    error += difference * difference;
  }
  return energy > 0 ? error / energy : 0;
}

namespace {

Outcome<TensorSet> load_set(const std::string& folder, const std::string& name) {
  TensorSet set;
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
  if (k[3] % 8 != 0) {
    return bad_model(folder + ": the head size (" + std::to_string(k[3]) + ") of " + name +
                     "_k is not a multiple of 8");
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
  return set;
}

}  // namespace

Outcome<TensorEval> TensorEval::load(const std::string& folder) {
  TensorEval eval;
  for (const char* name : {"text", "recall"}) {
    auto set = load_set(folder, name);
    if (!set.ok()) {
      return set.failure();
    }
    std::vector<float> output = exact_attention(*set);
    eval.sets_.push_back({std::move(*set), std::move(output)});
  }
  return eval;
}

Outcome<std::vector<TensorFigures>> TensorEval::run(const std::shared_ptr<Device>& device,
                                                    const FormatPair& pair) const {
  std::vector<TensorFigures> all;
  for (const Recorded& set : sets_) {
    auto held = HeldSet::fill(device, pair, set.tensors);
    if (!held.ok()) {
      return held.failure();
    }
    const auto output = held->attend(set.tensors);
    if (!output.ok()) {
      return output.failure();
    }
    const auto k = held->read(set.tensors, KVANT_SIDE_K);
    if (!k.ok()) {
      return k.failure();
    }
    const auto v = held->read(set.tensors, KVANT_SIDE_V);
    if (!v.ok()) {
      return v.failure();
    }
    all.push_back(
        {set.tensors.name, compare(set.tensors.k, *k), compare(set.tensors.v, *v), compare(set.output, *output)});
  }
  return all;
}

}  // namespace kvant::tools
