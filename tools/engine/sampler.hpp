// Next-token choice: greedy, temperature, top-k, top-p and their combination, reproducible from a seed.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace kvant::engine {

struct SamplerOptions {
  float temperature = 0.0f;  // 0: greedy
  uint32_t top_k = 0;        // 0: all
  float top_p = 1.0f;        // 1: all
  uint64_t seed = 0;
};

struct Candidate {
  uint32_t token = 0;
  double probability = 0.0;
};

// What may be drawn, most probable first, summing to one. Order of the filters: temperature, top-k, top-p.
std::vector<Candidate> candidates(const SamplerOptions& options, std::span<const float> logits);

uint32_t argmax(std::span<const float> logits);

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}
  uint32_t next(std::span<const float> logits);

 private:
  SamplerOptions options_;
  std::mt19937_64 random_;
};

}  // namespace kvant::engine
