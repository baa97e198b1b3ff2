// Drawing, measuring and the change itself.
#include "key_outliers.hpp"

#include <algorithm>
#include <cmath>
#include <random>

#include "llama.hpp"
#include "plain_attention.hpp"

namespace kvant::engine {

namespace {

// Attention without a cache that sums the squares of each head's keys.
class MeasuringAttention : public PlainAttention {
 public:
  MeasuringAttention(const AttentionShape& shape, size_t rows)
      : PlainAttention(shape), shape_(shape), rows_(rows), squares_(size_t{shape.layers} * shape.kv_heads) {}

  Outcome<void> run(uint32_t layer, const float* k, const float* v, const float* q, float* out) override {
    for (size_t row = 0; row < rows_; ++row) {
      for (uint32_t head = 0; head < shape_.kv_heads; ++head) {
        const float* key = k + (row * shape_.kv_heads + head) * shape_.head_dim;
        for (uint32_t i = 0; i < shape_.head_dim; ++i) {
          squares_[size_t{layer} * shape_.kv_heads + head] += static_cast<double>(key[i]) * static_cast<double>(key[i]);
        }
      }
    }
    return PlainAttention::run(layer, k, v, q, out);
  }

  std::vector<float> sigmas() const {
    std::vector<float> all;
    for (const double sum : squares_) {
      all.push_back(static_cast<float>(std::sqrt(sum / (static_cast<double>(rows_) * shape_.head_dim))));
    }
    return all;
  }

 private:
  AttentionShape shape_;
  size_t rows_;
  std::vector<double> squares_;  // [layer][KV head]
};

}  // namespace

Outcome<KeyOutliers> KeyOutliers::measure(Llama& model, std::span<const uint32_t> tokens) {
  if (model.key_outliers() != nullptr) {
    return Failure{"the model's keys have outliers already: they cannot be measured"};
  }
  const AttentionShape shape = model.config().attention();
  Batch batch;
  batch.entries = {{0, 0, static_cast<uint32_t>(tokens.size())}};
  batch.tokens.assign(tokens.begin(), tokens.end());
  MeasuringAttention attention(shape, tokens.size());
  std::vector<float> logits;
  KVANT_TRY(model.forward(batch, attention, logits));
  return draw(shape, model.config().rope_dims, attention.sigmas());
}

Outcome<KeyOutliers> KeyOutliers::draw(const AttentionShape& shape, uint32_t rope_dims, std::span<const float> sigmas) {
  // Each head needs pairs to scale and, beside them, channels to add to.
  const uint32_t pairs = rope_dims / 2;
  if (pairs < kPairs || shape.head_dim < 2 * kPairs + kChannels) {
    return Failure{"heads of " + std::to_string(shape.head_dim) + " elements with " + std::to_string(pairs) +
                   " RoPE pairs are too small for outlier keys: " + std::to_string(kPairs) + " pairs and " +
                   std::to_string(kChannels) + " other channels are needed"};
  }
  if (sigmas.size() != size_t{shape.layers} * shape.kv_heads) {
    return Failure{std::to_string(sigmas.size()) + " sizes of keys were given for " + std::to_string(shape.layers) +
                   " layers of " + std::to_string(shape.kv_heads) + " KV heads"};
  }
  KeyOutliers outliers;
  outliers.shape_ = shape;
  std::mt19937 random(20240607);
  for (const float sigma : sigmas) {
    Head head{};
    for (uint32_t i = 0; i < kPairs; ++i) {
      const auto known = [&](uint32_t pair) { return std::find(head.pairs, head.pairs + i, pair) != head.pairs + i; };
      do {
        head.pairs[i] = static_cast<uint32_t>(random() % pairs);
      } while (known(head.pairs[i]));
    }
    for (uint32_t i = 0; i < kChannels; ++i) {
      const auto taken = [&](uint32_t channel) {
        return std::find(head.channels, head.channels + i, channel) != head.channels + i ||
               std::find(head.pairs, head.pairs + kPairs, channel / 2) != head.pairs + kPairs;
      };
      do {
        head.channels[i] = static_cast<uint32_t>(random() % shape.head_dim);
      } while (taken(head.channels[i]));
      head.constants[i] = (random() % 2 != 0 ? kSigmas : -kSigmas) * sigma;
    }
    outliers.heads_.push_back(head);
  }
  return outliers;
}

void KeyOutliers::apply(uint32_t layer, float* k, float* q, size_t rows) const {
  const uint32_t group = shape_.q_heads / shape_.kv_heads;
  const auto scale = [](float* x, const Head& change, float factor) {
    for (const uint32_t pair : change.pairs) {
      x[2 * pair] *= factor;
      x[2 * pair + 1] *= factor;
    }
  };
  for (size_t row = 0; row < rows; ++row) {
    for (uint32_t kv_head = 0; kv_head < shape_.kv_heads; ++kv_head) {
      const Head& change = head(layer, kv_head);
      float* key = k + (row * shape_.kv_heads + kv_head) * shape_.head_dim;
      scale(key, change, kFactor);
      for (uint32_t i = 0; i < kChannels; ++i) {
        key[change.channels[i]] += change.constants[i];
      }
      for (uint32_t i = 0; i < group; ++i) {
        scale(q + (row * shape_.q_heads + kv_head * group + i) * shape_.head_dim, change, 1.0f / kFactor);
      }
    }
  }
}

}  // namespace kvant::engine
