// Softmax in double, a stable order (by logit, then by token id), and one 64-bit random number a token.
#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvant::engine {

uint32_t argmax(std::span<const float> logits) {
  return static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<Candidate> candidates(const SamplerOptions& options, std::span<const float> logits) {
  if (options.temperature <= 0.0f) {
    return {{argmax(logits), 1.0}};
  }
  std::vector<uint32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  if (options.top_k > 0 && options.top_k < order.size()) {
    order.resize(options.top_k);
  }
  std::vector<Candidate> kept;
  double sum = 0.0;
  for (const uint32_t token : order) {
    const double p = std::exp((static_cast<double>(logits[token]) - static_cast<double>(logits[order[0]])) /
                              static_cast<double>(options.temperature));
    kept.push_back({token, p});
    sum += p;
  }
  // top-p keeps the shortest head whose probability reaches p; at least one token always stays.
  double head = 0.0;
  size_t keep = 0;
  while (keep < kept.size() && (keep == 0 || head < static_cast<double>(options.top_p) * sum)) {
    head += kept[keep++].probability;
  }
  if (options.top_p < 1.0f) {
    kept.resize(keep);
    sum = head;
  }
  for (Candidate& candidate : kept) {
    candidate.probability /= sum;
  }
  return kept;
}

uint32_t Sampler::next(std::span<const float> logits) {
  const std::vector<Candidate> kept = candidates(options_, logits);
  if (kept.size() == 1) {
    return kept[0].token;
  }
  // 53 random bits: the same on every standard library, which std::uniform_real_distribution is not.
  double draw = static_cast<double>(random_() >> 11) * 0x1p-53;
  for (const Candidate& candidate : kept) {
    draw -= candidate.probability;
    if (draw < 0.0) {
      return candidate.token;
    }
  }
  return kept.back().token;
}

}  // namespace kvant::engine
