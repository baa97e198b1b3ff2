// Whole tensors by (prefix, layer): exact in f32, within the format's error otherwise; what leaves when it is full; and the hybrid of
// a wide and a narrow cache.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "cache.hpp"
#include "host_random.hpp"
#include "host_test_executor.hpp"
#include "tensor_store.hpp"

namespace kvant {
namespace {

using test::Random;
using test::TestExecutor;
using Tokens = std::vector<std::int32_t>;

constexpr std::uint32_t kHeads = 2, kDim = 32;

CacheSpec spec_of(std::uint32_t layers, std::uint64_t pages, FormatId format) {
  CacheSpec spec;
  spec.layers.assign(layers, {kHeads, kDim, kDim, format, format, 0, 0});
  spec.capacity_tokens = pages * 16;
  spec.prefix_cache = true;
  spec.model_id = "test";
  return spec;
}

// The tensor of a token depends on all tokens up to it, as in a model.
std::vector<float> tensor(const Tokens& tokens, std::uint32_t layer, Side side) {
  std::vector<float> out;
  std::uint64_t state = layer * 2 + static_cast<std::uint64_t>(side) + 1;
  for (const std::int32_t token : tokens) {
    state = (state ^ static_cast<std::uint32_t>(token)) * 0x9E3779B97F4A7C15ull;
    state ^= state >> 31;
    Random random(state);
    for (std::uint32_t i = 0; i < kHeads * kDim; ++i) out.push_back(random.normal());
  }
  return out;
}

TensorView view(std::vector<float>& x) {
  TensorView made;
  made.host = reinterpret_cast<std::byte*>(x.data());
  return made;
}

struct Store {
  TestExecutor executor;
  std::unique_ptr<Cache> hot, cold;
  std::unique_ptr<TensorStore> store;
  std::uint32_t layers;

  Store(std::uint32_t layer_count, std::uint64_t pages, FormatId format, std::uint64_t cold_pages = 0,
        PolicyKind policy = PolicyKind::lru)
      : layers(layer_count) {
    hot = Cache::create(executor, spec_of(layers, pages, format), Log{}).value();
    StoreSpec spec;
    spec.hot = hot.get();
    if (cold_pages != 0) {
      cold = Cache::create(executor, spec_of(layers, cold_pages, FormatId::q8_0), Log{}).value();
      spec.cold = cold.get();
    }
    spec.policy.kind = policy;
    auto created = TensorStore::create(executor, spec);
    REQUIRE_MESSAGE(created.ok(), created.status().message());
    store = std::move(created).value();
  }

  Status put(const Tokens& tokens, std::uint32_t layer) {
    std::vector<float> k = tensor(tokens, layer, Side::k), v = tensor(tokens, layer, Side::v);
    return store->put(tokens, "", layer, view(k), view(v));
  }
  void put_all(const Tokens& tokens) {
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      const Status status = put(tokens, layer);
      REQUIRE_MESSAGE(status.ok(), status.message());
    }
  }
  // Largest error of K and V relative to the block's largest value; nullopt: a miss.
  std::optional<float> get(const Tokens& tokens, std::uint32_t layer) {
    std::vector<float> k(tokens.size() * kHeads * kDim, NAN), v = k;
    const auto found = store->get(tokens, "", layer, view(k), view(v));
    REQUIRE_MESSAGE(found.ok(), found.status().message());
    if (!found.value()) return std::nullopt;
    float worst = 0;
    for (const Side side : {Side::k, Side::v}) {
      const std::vector<float> expected = tensor(tokens, layer, side), &got = side == Side::k ? k : v;
      for (std::size_t block = 0; block < expected.size(); block += 32) {
        float most = 0, error = 0;
        for (std::size_t i = block; i < block + 32; ++i) {
          most = std::max(most, std::fabs(expected[i]));
          error = std::max(error, std::isnan(got[i]) ? INFINITY : std::fabs(expected[i] - got[i]));
        }
        worst = std::max(worst, error / most);
      }
    }
    return worst;
  }
};

Tokens prompt(std::int32_t seed, std::size_t length) {
  Tokens tokens(length);
  for (std::size_t i = 0; i < length; ++i) tokens[i] = seed * 1000 + static_cast<std::int32_t>(i);
  return tokens;
}

// A step of q8_0 is 1/127 of the block's largest value; its scale is rounded to f16, by at most 2^-11 of itself, and to f32 in between.
constexpr float kQ8Error = 0.5f / 127 + 1.0f / 2048 + 1e-6f;

TEST_CASE("host store: fifty requests over five prompts of 32 layers hit after the first of each") {
  for (const FormatId format : {FormatId::f32, FormatId::q8_0}) {
    Store store(32, 40, format);
    int hits = 0, lookups = 0;
    for (int request = 0; request < 50; ++request) {
      const Tokens tokens = prompt(request % 5, 40 + static_cast<std::size_t>(request % 5));
      const bool known = store.store->layers_held(tokens, "") == 32;
      CHECK(known == (request >= 5));
      if (!known) {
        ++lookups;
        CHECK_FALSE(store.get(tokens, 0).has_value());
        store.put_all(tokens);
        continue;
      }
      for (std::uint32_t layer = 0; layer < 32; ++layer) {
        ++lookups;
        const std::optional<float> error = store.get(tokens, layer);
        REQUIRE(error.has_value());
        ++hits;
        CHECK(*error <= (format == FormatId::f32 ? 0.0f : kQ8Error));
      }
    }
    CHECK(hits == 1440);
    CHECK(lookups == 1445);
    CHECK(store.store->counters().lookups == 1445);
    CHECK(store.store->counters().hits == 1440);
    CHECK(store.store->counters().puts == 5 * 32);
  }
}

TEST_CASE("host store: prefixes share pages with each other and with sequences") {
  Store store(2, 20, FormatId::f32);
  store.put_all(prompt(1, 64));
  const std::uint64_t before = store.hot->memory_use().used_pages;
  Tokens longer = prompt(1, 70);
  longer[66] = 5;
  store.put_all(longer);
  CHECK(store.hot->memory_use().used_pages == before + 1);
  CHECK(store.get(longer, 1) == 0.0f);
  CHECK(store.get(prompt(1, 64), 1) == 0.0f);
  SequenceSpec spec;
  spec.tokens = longer;
  const SequenceStart start = store.hot->create_sequence(spec).value();
  CHECK(start.reused_tokens == 64);
  // A part of it is another prefix, until somebody puts it: then nothing is left to write but its end.
  CHECK_FALSE(store.get(prompt(1, 40), 0).has_value());
  store.put_all(prompt(1, 40));
  CHECK(store.get(prompt(1, 40), 0) == 0.0f);
  CHECK(store.store->erase(prompt(1, 40), ""));
  CHECK_FALSE(store.store->erase(prompt(1, 40), ""));
  CHECK_FALSE(store.store->erase(prompt(1, 64), "salt"));
  REQUIRE(store.hot->destroy_sequence(start.sequence).ok());
  store.store->clear();
  CHECK(store.store->counters().prefixes == 0);
  REQUIRE(store.hot->clear_prefixes().ok());
  CHECK(store.hot->memory_use().used_pages == 0);
}

TEST_CASE("host store: layers come one by one, in any order, and are not written twice") {
  Store store(3, 10, FormatId::f32);
  const Tokens tokens = prompt(1, 20);
  REQUIRE(store.put(tokens, 2).ok());
  CHECK_FALSE(store.get(tokens, 0).has_value());
  CHECK(store.get(tokens, 2) == 0.0f);
  REQUIRE(store.put(tokens, 0).ok());
  REQUIRE(store.put(tokens, 0).ok());
  CHECK(store.store->counters().puts == 2);
  CHECK(store.store->layers_held(tokens, "") == 2);
  CHECK(store.put(tokens, 3).code() == StatusCode::invalid_argument);
  CHECK(store.put({}, 0).code() == StatusCode::invalid_argument);
}

TEST_CASE("host store: a full cache lets the least recently used prefix go; policy none refuses") {
  Store store(2, 6, FormatId::f32);
  store.put_all(prompt(1, 32));
  store.put_all(prompt(2, 32));
  store.put_all(prompt(3, 32));
  CHECK(store.get(prompt(1, 32), 0).has_value());
  store.put_all(prompt(4, 32));
  CHECK_FALSE(store.get(prompt(2, 32), 0).has_value());
  CHECK(store.get(prompt(1, 32), 1) == 0.0f);
  CHECK(store.store->counters().evicted == 1);
  CHECK(store.put(prompt(5, 97), 0).code() == StatusCode::resource_exhausted);
  Store none(2, 4, FormatId::f32, 0, PolicyKind::none);
  none.put_all(prompt(1, 64));
  CHECK(none.put(prompt(2, 16), 0).code() == StatusCode::resource_exhausted);
  CHECK(none.get(prompt(1, 64), 1) == 0.0f);
}

TEST_CASE("host store: a hybrid keeps used prefixes wide and others narrow") {
  Store store(2, 4, FormatId::f32, 8);
  store.put_all(prompt(1, 32));
  store.put_all(prompt(2, 32));
  store.put_all(prompt(3, 32));  // 1 becomes narrow
  CHECK(store.store->counters().demoted == 1);
  CHECK(store.store->counters().cold_prefixes == 1);
  std::optional<float> error = store.get(prompt(1, 32), 0);
  REQUIRE(error.has_value());
  CHECK(*error > 0.0f);
  CHECK(*error <= kQ8Error);
  CHECK(store.get(prompt(3, 32), 0) == 0.0f);
  for (int pass = 0; pass < 2; ++pass)
    for (std::uint32_t layer = 0; layer < 2; ++layer) CHECK(*store.get(prompt(1, 32), layer) <= kQ8Error);
  CHECK(store.store->counters().promoted == 1);
  CHECK(store.store->counters().demoted == 2);  // 2 made room for it
  CHECK(store.get(prompt(2, 32), 1).has_value());
  CHECK(store.store->counters().prefixes == 3);
  // Until the narrow cache is full too.
  for (int i = 4; i < 12; ++i) store.put_all(prompt(i, 32));
  CHECK(store.store->counters().evicted >= 1);
  CHECK(store.store->counters().prefixes == 6);  // two wide, four narrow
}

TEST_CASE("host store: caches that do not fit are refused") {
  TestExecutor executor;
  const auto a = Cache::create(executor, spec_of(2, 4, FormatId::f32), Log{}).value();
  const auto b = Cache::create(executor, spec_of(3, 4, FormatId::q8_0), Log{}).value();
  StoreSpec spec;
  spec.hot = a.get();
  spec.cold = b.get();
  CHECK(TensorStore::create(executor, spec).status().code() == StatusCode::invalid_argument);
  spec.cold = a.get();
  CHECK(TensorStore::create(executor, spec).status().code() == StatusCode::invalid_argument);
}

TEST_CASE("host store: random puts and gets agree with a map, and failures of the device are passed on") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    Store store(2, 12, FormatId::f32, seed % 2 == 0 ? 16 : 0);
    std::map<Tokens, std::vector<bool>> known;
    for (int i = 0; i < 150; ++i) {
      CAPTURE(i);
      const Tokens tokens = prompt(static_cast<std::int32_t>(random.below(3)), random.between(1, 70));
      const std::uint32_t layer = random.below(2);
      if (random.chance(10)) {
        (random.chance(50) ? store.executor.fail_submit : store.executor.fail_stage) = static_cast<int>(random.below(4));
        const Status status = store.put(tokens, layer);
        store.executor.fail_submit = store.executor.fail_stage = -1;
        if (!status.ok()) continue;
        auto& layers = known[tokens];
        layers.resize(2);
        layers[layer] = true;
      } else if (random.chance(60)) {
        const Status status = store.put(tokens, layer);
        REQUIRE_MESSAGE(status.ok(), status.message());
        auto& layers = known[tokens];
        layers.resize(2);
        layers[layer] = true;
      } else if (const std::optional<float> error = store.get(tokens, layer)) {
        REQUIRE((known.contains(tokens) && known[tokens][layer]));
        REQUIRE(*error <= (store.cold ? kQ8Error : 0.0f));
      }
      if (random.chance(5)) store.store->erase(tokens, "");
    }
    store.store->clear();
    REQUIRE(store.hot->clear_prefixes().ok());
    CHECK(store.hot->memory_use().used_pages == 0);
    if (store.cold) {
      REQUIRE(store.cold->clear_prefixes().ok());
      CHECK(store.cold->memory_use().used_pages == 0);
    }
  }
}

}  // namespace
}  // namespace kvant
