// Outlier keys through the plugin: an f32 cache gives the model's own logits, and narrow formats mind them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "engine/cache_attention.hpp"
#include "engine/key_outliers.hpp"
#include "engine/llama.hpp"
#include "engine/tokenizer.hpp"
#include "test_device.hpp"

TEST_CASE("outlier keys leave the logits over an f32 cache as they are, and not those over q4_0") {
  using namespace kvant;
  const auto device = open_test_device();
  if (device == nullptr) {
    return;
  }
  const auto file = engine::GgufFile::load(KVANT_SOURCE_DIR "/models/tiny.gguf");
  REQUIRE_MESSAGE(file.ok(), file.failure().message);
  const auto tokenizer = engine::Tokenizer::from(*file);
  auto model = engine::Llama::load(*file);
  REQUIRE(tokenizer.ok());
  REQUIRE_MESSAGE(model.ok(), model.failure().message);
  const auto tokens = tokenizer->encode("And it came to pass in those days, that there went out a decree from Caesar");
  const engine::AttentionShape shape = model->config().attention();
  const auto logits_over = [&](const char* name) {
    const auto format = device->library()->format(name);
    REQUIRE(format.ok());
    auto attention = engine::CacheAttention::create(device, shape, format->id, format->id, tokens.size(), 1);
    REQUIRE_MESSAGE(attention.ok(), attention.failure().message);
    std::vector<float> all, logits;
    // In parts: later ones read what earlier ones left in the cache.
    constexpr uint32_t kPart = 20;
    for (uint32_t begin = 0; begin < tokens.size(); begin += kPart) {
      const uint32_t count = std::min(kPart, static_cast<uint32_t>(tokens.size()) - begin);
      engine::Batch batch;
      batch.entries = {{0, begin, count}};
      batch.tokens.assign(tokens.begin() + begin, tokens.begin() + begin + count);
      for (uint32_t row = 0; row < count; ++row) {
        batch.logit_rows.push_back(row);
      }
      const auto done = model->forward(batch, **attention, logits);
      REQUIRE_MESSAGE(done.ok(), done.failure().message);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  };
  const auto largest_difference = [](const std::vector<float>& a, const std::vector<float>& b) {
    float largest = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::fabs(a[i] - b[i]));
    }
    return largest;
  };
  const auto plain = logits_over("f32");
  const auto plain_q4 = logits_over("q4_0");
  const auto outliers = engine::KeyOutliers::measure(*model, tokens);
  REQUIRE_MESSAGE(outliers.ok(), outliers.failure().message);
  model->set_key_outliers(std::make_shared<const engine::KeyOutliers>(*outliers));
  CHECK(largest_difference(logits_over("f32"), plain) < 1e-3f);
  CHECK(largest_difference(logits_over("q4_0"), plain) > 1.5f * largest_difference(plain_q4, plain));
  check_quiet(*device);
}
