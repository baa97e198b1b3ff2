// kvant eval's needles: keys that are multiples of their queries, among many normal ones.
#include <algorithm>
#include <cmath>

#include "eval.hpp"
#include "made_up.hpp"

namespace kvant::tools {

namespace {

constexpr uint32_t kNeedles = 16;

}  // namespace

NeedleEval::Haystack NeedleEval::hide(uint32_t keys, uint32_t head_dim) {
  Haystack stack;
  TensorSet& set = stack.tensors;
  set.layers = 1;
  set.tokens = keys;
  set.kv_heads = 1;
  set.head_dim = head_dim;
  set.queries = kNeedles;
  set.q_heads = 1;
  set.k = normal_values(300 + head_dim, set.kv_size());
  set.v = normal_values(400 + head_dim, set.kv_size());
  set.q = normal_values(500 + head_dim, set.q_size());
  const double root = std::sqrt(static_cast<double>(head_dim));
  // Queries of length sqrt(d): over normal keys their logits are normal, and those of all keys together weigh as one
  // logit of ln(keys) + 1/2. The needle's, alpha sqrt(d), lies ln(99) above: it weighs about 99 %, so that a key held
  // less well than that shows.
  const double alpha = (std::log(static_cast<double>(keys)) + 0.5 + std::log(99.0)) / root;
  for (uint32_t needle = 0; needle < kNeedles; ++needle) {
    float* const query = &set.q[size_t{needle} * head_dim];
    double energy = 0;
    for (uint32_t i = 0; i < head_dim; ++i) {
      energy += static_cast<double>(query[i]) * static_cast<double>(query[i]);
    }
    // Spread over the sequence, at all places of a page, and before the first query's own.
    const uint32_t place = needle * (keys / kNeedles) + needle;
    for (uint32_t i = 0; i < head_dim; ++i) {
      const double value = static_cast<double>(query[i]) * root / std::sqrt(energy);
      query[i] = static_cast<float>(value);
      set.k[size_t{place} * head_dim + i] = static_cast<float>(alpha * value);
    }
    stack.places.push_back(place);
  }
  std::vector<double> weights(keys);
  for (uint32_t needle = 0; needle < kNeedles; ++needle) {
    attention_weights(set, set.k, needle, weights);
    stack.masses.push_back(weights[stack.places[needle]]);
  }
  return stack;
}

NeedleEval NeedleEval::make(bool quick) {
  NeedleEval eval;
  eval.stacks_.push_back(hide(quick ? 4096 : 16384, 128));
  if (!quick) {
    eval.stacks_.push_back(hide(16384, 64));
  }
  return eval;
}

Outcome<std::vector<NeedleFigures>> NeedleEval::run(const std::shared_ptr<Device>& device,
                                                    const FormatPair& pair) const {
  std::vector<NeedleFigures> all;
  for (const Haystack& stack : stacks_) {
    const TensorSet& set = stack.tensors;
    auto held = HeldSet::fill(device, pair, set);
    if (!held.ok()) {
      return held.failure();
    }
    // The weight that the cache's own attention gives a needle, by log-sum-exps: over all keys, and over the needle.
    const uint32_t words = HeldSet::mask_words(set);
    std::vector<uint32_t> only(size_t{kNeedles} * words);
    for (uint32_t needle = 0; needle < kNeedles; ++needle) {
      only[size_t{needle} * words + stack.places[needle] / 32] = 1u << stack.places[needle] % 32;
    }
    std::vector<float> whole, alone;
    if (const auto attended = held->attend(set, {}, &whole); !attended.ok()) {
      return attended.failure();
    }
    if (const auto attended = held->attend(set, only, &alone); !attended.ok()) {
      return attended.failure();
    }
    const auto k = held->read(set, KVANT_SIDE_K);
    if (!k.ok()) {
      return k.failure();
    }
    NeedleFigures figures{set.head_dim, set.tokens, kNeedles, 0, 0, INFINITY};
    std::vector<double> weights(set.tokens);
    for (uint32_t needle = 0; needle < kNeedles; ++needle) {
      attention_weights(set, *k, needle, weights);
      const auto most = std::max_element(weights.begin(), weights.end()) - weights.begin();
      figures.found += most == static_cast<std::ptrdiff_t>(stack.places[needle]) ? 1 : 0;
      figures.exact_mass += stack.masses[needle] / kNeedles;
      const double mass = std::exp(static_cast<double>(alone[needle]) - static_cast<double>(whole[needle]));
      figures.least_share = std::min(figures.least_share, mass / stack.masses[needle]);
    }
    all.push_back(figures);
  }
  return all;
}

}  // namespace kvant::tools
