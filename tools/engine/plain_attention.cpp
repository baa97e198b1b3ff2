// Two passes a query (scores with their maximum, then weighted values), in float, over the keys up to its own.
#include "plain_attention.hpp"

#include <algorithm>
#include <cmath>

namespace kvant::engine {

Outcome<void> PlainAttention::begin(std::span<const BatchEntry> entries) {
  for (const BatchEntry& entry : entries) {
    if (entry.position != 0) {
      return Failure{"without a cache a batch must bring all tokens of a sequence, and this one starts at position " +
                     std::to_string(entry.position)};
    }
    if (!entry.mask.empty()) {
      return Failure{"without a cache a batch cannot have a mask"};
    }
  }
  entries_.assign(entries.begin(), entries.end());
  return {};
}

namespace {

float dot(const float* a, const float* b, uint32_t count) {
  float lanes[8] = {};
  uint32_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (uint32_t lane = 0; lane < 8; ++lane) {
      lanes[lane] += a[i + lane] * b[i + lane];
    }
  }
  float sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  for (; i < count; ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

}  // namespace

Outcome<void> PlainAttention::run(uint32_t, const float* k, const float* v, const float* q, float* out) {
  const uint32_t dim = shape_.head_dim;
  const uint32_t group = shape_.q_heads / shape_.kv_heads;
  const size_t kv_row = size_t{shape_.kv_heads} * dim;
  const size_t q_row = size_t{shape_.q_heads} * dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  std::vector<float> weights;
  size_t first = 0;
  for (const BatchEntry& entry : entries_) {
    weights.resize(entry.count);
    for (uint32_t head = 0; head < shape_.q_heads; ++head) {
      const float* keys = k + first * kv_row + size_t{head / group} * dim;
      const float* values = v + first * kv_row + size_t{head / group} * dim;
      for (uint32_t row = 0; row < entry.count; ++row) {
        const float* query = q + (first + row) * q_row + size_t{head} * dim;
        float* result = out + (first + row) * q_row + size_t{head} * dim;
        float largest = -INFINITY;
        for (uint32_t token = 0; token <= row; ++token) {
          weights[token] = scale * dot(query, keys + token * kv_row, dim);
          largest = std::max(largest, weights[token]);
        }
        float sum = 0.0f;
        for (uint32_t token = 0; token <= row; ++token) {
          weights[token] = std::exp(weights[token] - largest);
          sum += weights[token];
        }
        std::fill(result, result + dim, 0.0f);
        for (uint32_t token = 0; token <= row; ++token) {
          const float weight = weights[token] / sum;
          const float* value = values + token * kv_row;
          for (uint32_t i = 0; i < dim; ++i) {
            result[i] += weight * value[i];
          }
        }
      }
    }
    first += entry.count;
  }
  return {};
}

}  // namespace kvant::engine
