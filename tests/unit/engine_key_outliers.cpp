// Outlier keys change keys as they say, and nothing that attention computes from them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include "engine/key_outliers.hpp"
#include "engine/llama.hpp"
#include "engine/plain_attention.hpp"

using namespace kvant::engine;

namespace {

Llama load_model() {
  const auto file = GgufFile::load(KVANT_SOURCE_DIR "/models/tiny.gguf");
  REQUIRE_MESSAGE(file.ok(), file.failure().message);
  auto model = Llama::load(*file);
  REQUIRE_MESSAGE(model.ok(), model.failure().message);
  return std::move(*model);
}

}  // namespace

TEST_CASE(
    "outlier keys: two pairs and two channels a head, and the query heads of a group undo their KV head's change") {
  constexpr uint32_t kLayers = 3, kRows = 5, kGroup = 3;
  const AttentionShape shape{kLayers, 2 * kGroup, 2, 32};
  const std::vector<float> sigmas = {0.5f, 1.0f, 2.0f, 3.0f, 0.25f, 7.0f};
  const auto outliers = KeyOutliers::draw(shape, 24, sigmas);
  REQUIRE_MESSAGE(outliers.ok(), outliers.failure().message);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> k(kRows * shape.kv_heads * shape.head_dim), q(kRows * shape.q_heads * shape.head_dim);
  std::generate(k.begin(), k.end(), [&] { return normal(random); });
  std::generate(q.begin(), q.end(), [&] { return normal(random); });
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    CAPTURE(layer);
    std::vector<float> changed_k = k, changed_q = q;
    outliers->apply(layer, changed_k.data(), changed_q.data(), kRows);
    for (uint32_t head = 0; head < shape.kv_heads; ++head) {
      CAPTURE(head);
      const KeyOutliers::Head& change = outliers->head(layer, head);
      const float sigma = sigmas[layer * shape.kv_heads + head];
      CHECK(change.pairs[0] != change.pairs[1]);
      CHECK(change.channels[0] != change.channels[1]);
      for (uint32_t i = 0; i < shape.head_dim; ++i) {
        const bool scaled = std::count(change.pairs, change.pairs + 2, i / 2) > 0;
        const auto constant = std::find(change.channels, change.channels + 2, i);
        const bool shifted = constant != change.channels + 2;
        CHECK_FALSE((scaled && (shifted || i >= 24)));
        const float add = shifted ? change.constants[constant - change.channels] : 0.0f;
        CHECK(std::fabs(add) == (shifted ? 20.0f * sigma : 0.0f));
        for (uint32_t row = 0; row < kRows; ++row) {
          const size_t at = (row * shape.kv_heads + head) * shape.head_dim + i;
          CHECK(changed_k[at] == (scaled ? 4.0f * k[at] : k[at] + add));
        }
      }
      // Of one query with all keys: every product has moved by the same number.
      for (uint32_t q_head = head * kGroup; q_head < (head + 1) * kGroup; ++q_head) {
        std::vector<double> moved;
        const float* own = &q[q_head * shape.head_dim];
        const float* changed = &changed_q[q_head * shape.head_dim];
        for (uint32_t row = 0; row < kRows; ++row) {
          const size_t at = (row * shape.kv_heads + head) * shape.head_dim;
          double sum = 0;
          for (uint32_t i = 0; i < shape.head_dim; ++i) {
            sum += static_cast<double>(changed[i]) * static_cast<double>(changed_k[at + i]) -
                   static_cast<double>(own[i]) * static_cast<double>(k[at + i]);
          }
          moved.push_back(sum);
        }
        CHECK(std::fabs(moved[0]) > 1e-3);
        for (const double move : moved) {
          CHECK(std::fabs(move - moved[0]) < 1e-4);  // a constant of 140 rounds by 8e-6
        }
      }
    }
  }
  // Heads differ, and the draw is the same every time.
  CHECK_FALSE(std::equal(outliers->head(0, 0).pairs, outliers->head(0, 0).pairs + 2, outliers->head(0, 1).pairs));
  const auto again = KeyOutliers::draw(shape, 24, sigmas);
  REQUIRE(again.ok());
  CHECK(std::equal(outliers->head(2, 1).channels, outliers->head(2, 1).channels + 2, again->head(2, 1).channels));
}

TEST_CASE("outlier keys: shapes that have no room for them are refused") {
  const std::vector<float> sigmas = {1.0f};
  CHECK_FALSE(KeyOutliers::draw({1, 1, 1, 32}, 2, sigmas).ok());
  const auto refused = KeyOutliers::draw({1, 1, 1, 4}, 4, sigmas);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.failure().message.find("heads of 4 elements") != std::string::npos);
  CHECK_FALSE(KeyOutliers::draw({2, 1, 1, 32}, 32, sigmas).ok());
}

TEST_CASE("outlier keys: the shipped model's logits stay, its keys do not") {
  Llama model = load_model();
  std::vector<uint32_t> tokens = {1};
  for (uint32_t i = 0; i < 95; ++i) {
    tokens.push_back(3 + (i * 37 + 11) % 256);
  }
  const auto read = [&] {
    PlainAttention attention(model.config().attention());
    Batch batch;
    batch.entries = {{0, 0, static_cast<uint32_t>(tokens.size())}};
    batch.tokens = tokens;
    for (uint32_t row = 0; row < tokens.size(); ++row) {
      batch.logit_rows.push_back(row);
    }
    std::vector<float> logits;
    const auto done = model.forward(batch, attention, logits);
    REQUIRE_MESSAGE(done.ok(), done.failure().message);
    return logits;
  };
  const std::vector<float> plain = read();
  auto outliers = KeyOutliers::measure(model, tokens);
  REQUIRE_MESSAGE(outliers.ok(), outliers.failure().message);
  // Keys of the shipped model have magnitudes of a few units; constants are far beyond all of them.
  for (uint32_t layer = 0; layer < model.config().layers; ++layer) {
    for (uint32_t head = 0; head < model.config().kv_heads; ++head) {
      for (const float constant : outliers->head(layer, head).constants) {
        CHECK(std::fabs(constant) > 10.0f);
        CHECK(std::fabs(constant) < 200.0f);
      }
    }
  }
  model.set_key_outliers(std::make_shared<const KeyOutliers>(*outliers));
  const std::vector<float> changed = read();
  float largest = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    largest = std::max(largest, std::fabs(changed[i] - plain[i]));
  }
  CHECK(largest > 0.0f);
  CHECK(largest < 1e-3f);  // logits have an rms of about 12
  CHECK_FALSE(KeyOutliers::measure(model, tokens).ok());
  model.set_key_outliers(nullptr);
  CHECK(read() == plain);
}
