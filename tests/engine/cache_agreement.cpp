// The engine with an f32 cache computes what it computes without a cache; narrower formats stay near it, in order.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "engine/cache_attention.hpp"
#include "engine/plain_attention.hpp"
#include "engine/sampler.hpp"
#include "engine/session.hpp"
#include "engine/tokenizer.hpp"
#include "test_device.hpp"

namespace {

using namespace kvant;
using engine::Batch;

struct Shipped {
  engine::Tokenizer tokenizer;
  engine::Llama model;
};

Shipped load() {
  const auto file = engine::GgufFile::load(KVANT_SOURCE_DIR "/models/tiny.gguf");
  REQUIRE_MESSAGE(file.ok(), file.failure().message);
  auto tokenizer = engine::Tokenizer::from(*file);
  auto model = engine::Llama::load(*file);
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.failure().message);
  REQUIRE_MESSAGE(model.ok(), model.failure().message);
  return {std::move(*tokenizer), std::move(*model)};
}

std::vector<uint32_t> prompt(const engine::Tokenizer& tokenizer) {
  std::vector<uint32_t> tokens =
      tokenizer.encode("In the beginning God created the heaven and the earth. And the earth was");
  tokens.insert(tokens.begin(), tokenizer.bos());
  return tokens;
}

double rms_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (static_cast<double>(a[i]) - static_cast<double>(b[i])) *
           (static_cast<double>(a[i]) - static_cast<double>(b[i]));
  }
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// Logits of every token of the prompt, fed in parts of `part` tokens.
std::vector<float> logits_of(engine::Llama& model, engine::Attention& attention, const std::vector<uint32_t>& tokens,
                             uint32_t part) {
  std::vector<float> all, logits;
  for (uint32_t begin = 0; begin < tokens.size(); begin += part) {
    Batch batch;
    const uint32_t count = std::min(part, static_cast<uint32_t>(tokens.size()) - begin);
    batch.entries = {{0, begin, count}};
    batch.tokens.assign(tokens.begin() + begin, tokens.begin() + begin + count);
    for (uint32_t row = 0; row < count; ++row) {
      batch.logit_rows.push_back(row);
    }
    const auto done = model.forward(batch, attention, logits);
    REQUIRE_MESSAGE(done.ok(), done.failure().message);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

}  // namespace

TEST_CASE("cache and no cache agree, formats in order of their width") {
  const auto device = open_test_device();
  if (device == nullptr) {
    return;
  }
  Shipped shipped = load();
  const auto tokens = prompt(shipped.tokenizer);
  const engine::AttentionShape shape = shipped.model.config().attention();
  engine::PlainAttention plain(shape);
  const auto truth = logits_of(shipped.model, plain, tokens, static_cast<uint32_t>(tokens.size()));
  const auto difference = [&](const char* k, const char* v, uint32_t part) {
    const auto k_format = device->library()->format(k);
    const auto v_format = device->library()->format(v);
    REQUIRE(k_format.ok());
    REQUIRE(v_format.ok());
    auto attention = engine::CacheAttention::create(device, shape, k_format->id, v_format->id, tokens.size(), 1);
    REQUIRE_MESSAGE(attention.ok(), attention.failure().message);
    return rms_difference(truth, logits_of(shipped.model, **attention, tokens, part));
  };
  // In one step, token by token, and in parts that straddle pages. Logits have an rms of about 12.
  for (const uint32_t part : {static_cast<uint32_t>(tokens.size()), 1u, 7u, 16u}) {
    CAPTURE(part);
    CHECK(difference("f32", "f32", part) < 2e-4);
  }
  const double f16 = difference("f16", "f16", 32);
  const double q8_0 = difference("q8_0", "q8_0", 32);
  const double q4_0 = difference("q4_0", "q4_0", 32);
  const double mixed = difference("q8_0", "q4_0", 32);
  CHECK(f16 > 0.0);
  CHECK(f16 < 0.02);
  CHECK(f16 < q8_0);
  CHECK(q8_0 < mixed);
  CHECK(q8_0 < q4_0);
  CHECK(q4_0 < 3.0);
  check_quiet(*device);
}

TEST_CASE("greedy text through an f32 cache is the text without a cache, and truncation goes back in time") {
  const auto device = open_test_device();
  if (device == nullptr) {
    return;
  }
  Shipped shipped = load();
  const auto tokens = prompt(shipped.tokenizer);
  const engine::AttentionShape shape = shipped.model.config().attention();
  const auto write = [&](engine::Session& session) {
    std::vector<float> logits;
    std::vector<uint32_t> written;
    REQUIRE(session.feed(tokens, logits).ok());
    for (int i = 0; i < 24; ++i) {
      written.push_back(engine::argmax(logits));
      REQUIRE(session.feed({&written.back(), 1}, logits).ok());
    }
    return written;
  };
  engine::PlainAttention plain(shape);
  engine::Session plain_session(shipped.model, plain, false);
  const auto expected = write(plain_session);
  auto cache = engine::CacheAttention::create(device, shape, 0, 0, tokens.size() + 24, 1);
  REQUIRE_MESSAGE(cache.ok(), cache.failure().message);
  engine::Session session(shipped.model, **cache, true, 20);
  CHECK(write(session) == expected);
  session.reset();
  REQUIRE((*cache)->truncate(0).ok());
  CHECK(write(session) == expected);

  // The pool is full now: one more token is refused, and the cache is as it was.
  std::vector<float> logits;
  const uint32_t token = 100;
  const auto stats_before = (*cache)->cache().stats();
  REQUIRE(stats_before.ok());
  constexpr uint64_t kPageTokens = 16;
  const std::vector<uint32_t> too_many(stats_before->total_pages * kPageTokens - session.length() + 1, token);
  CHECK_FALSE(session.feed(too_many, logits).ok());
  const auto stats_after = (*cache)->cache().stats();
  REQUIRE(stats_after.ok());
  CHECK(stats_after->sequence_tokens == stats_before->sequence_tokens);
  CHECK(stats_after->used_bytes == stats_before->used_bytes);
  check_quiet(*device);
}
