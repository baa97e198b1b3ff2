// The tensor store at its edges: prefixes that are not whole, that are erased, that meet on their way to the narrow cache.
#include <doctest/doctest.h>

#include "host_prefix_model.hpp"
#include "tensor_store.hpp"

namespace kvant {
namespace {

using test::counting;
using test::TestExecutor;
using test::Tokens;

constexpr std::uint32_t kLayers = 2, kRow = 32;

struct Hybrid {
  TestExecutor executor;
  std::unique_ptr<Cache> hot, cold;
  std::unique_ptr<TensorStore> store;

  Hybrid(std::uint64_t hot_pages, std::uint64_t cold_pages) : hot(cache(hot_pages)), cold(cache(cold_pages)) {
    StoreSpec spec;
    spec.hot = hot.get();
    spec.cold = cold.get();
    store = TensorStore::create(executor, spec).value();
  }
  std::unique_ptr<Cache> cache(std::uint64_t pages) {
    CacheSpec spec;
    spec.layers.assign(kLayers, {1, kRow, kRow, FormatId::f32, FormatId::f32, 0, 0});
    spec.capacity_tokens = pages * 16;
    spec.prefix_cache = true;
    return Cache::create(executor, spec, Log{}).value();
  }
  static std::vector<float> rows(const Tokens& tokens, std::uint32_t layer) {
    std::vector<float> out;
    for (std::size_t t = 0; t < tokens.size() * kRow; ++t)
      out.push_back(static_cast<float>(tokens[t / kRow]) + static_cast<float>(layer) / 4);
    return out;
  }
  static TensorView view(std::vector<float>& data) {
    TensorView made;
    made.host = reinterpret_cast<std::byte*>(data.data());
    return made;
  }
  void put(const Tokens& tokens, std::uint32_t layers = kLayers) {
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      std::vector<float> data = rows(tokens, layer);
      REQUIRE(store->put(tokens, "", layer, view(data), view(data)).ok());
    }
  }
  bool get(const Tokens& tokens, std::uint32_t layer = 0) {
    std::vector<float> k(tokens.size() * kRow), v = k;
    const auto found = store->get(tokens, "", layer, view(k), view(v));
    REQUIRE_MESSAGE(found.ok(), found.status().message());
    if (found.value()) CHECK((k == rows(tokens, layer) && v == k));
    return found.value();
  }
};

TEST_CASE("host store: what is not whole does not move, it leaves") {
  Hybrid h(4, 8);
  h.put(counting(0, 32), 1);
  h.put(counting(100, 32));
  h.put(counting(200, 32));
  CHECK_FALSE(h.get(counting(0, 32)));
  CHECK(h.store->counters().evicted == 1);
  CHECK(h.store->counters().demoted == 0);
  CHECK(h.store->counters().cold_prefixes == 0);
}

TEST_CASE("host store: what is erased is out of every book") {
  Hybrid h(4, 4);
  for (int i = 0; i < 4; ++i) h.put(counting(i * 100, 32));  // two wide, two narrow
  CHECK(h.store->counters().cold_prefixes == 2);
  CHECK(h.store->erase(counting(0, 32), ""));
  CHECK(h.store->erase(counting(300, 32), ""));
  CHECK_FALSE(h.store->erase(counting(0, 32), ""));
  CHECK(h.store->counters().prefixes == 2);
  for (int i = 4; i < 12; ++i) h.put(counting(i * 100, 32));
  CHECK(h.get(counting(1100, 32)));
  CHECK(h.store->counters().prefixes == 4);
}

TEST_CASE("host store: prefixes of another salt are others, also for tokens that are the same") {
  Hybrid h(8, 8);
  h.put(counting(0, 32));
  std::vector<float> data = Hybrid::rows(counting(500, 32), 0), got(data.size());
  REQUIRE(h.store->put(counting(0, 32), "tenant", 0, Hybrid::view(data), Hybrid::view(data)).ok());
  REQUIRE(h.store->get(counting(0, 32), "tenant", 0, Hybrid::view(got), {}).value());
  CHECK(got == data);
  CHECK(h.get(counting(0, 32)));
}

TEST_CASE("host store: what the narrow cache has of a prefix is shared there, not written again") {
  Hybrid h(6, 16);
  h.put(counting(0, 48));
  h.put(counting(100, 48));
  h.put(counting(200, 48));  // the first one moves
  CHECK(h.cold->memory_use().used_pages == 3);
  Tokens longer = counting(0, 48);
  longer.resize(80, 7);
  h.put(longer);
  for (int i = 3; i < 5; ++i) h.put(counting(i * 100, 48));
  CHECK(h.get(longer));
  CHECK(h.cold->memory_use().used_pages == 3 + 2 + 3 + 3);  // the longer one's first three are there already
}

TEST_CASE("host store: uses count from the last move on") {
  Hybrid h(4, 16);
  const Tokens tokens = counting(0, 32);
  h.put(tokens);
  const auto pass = [&] {
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) CHECK(h.get(tokens, layer));
  };
  for (int i = 0; i < 5; ++i) pass();  // while it is wide: these say nothing of its use as a narrow one
  h.put(counting(100, 32));
  h.put(counting(200, 32));
  REQUIRE(h.store->counters().demoted == 1);
  pass();
  CHECK(h.store->counters().promoted == 0);
  pass();
  pass();
  CHECK(h.store->counters().promoted == 1);
  CHECK(h.store->counters().demoted == 2);
}

}  // namespace
}  // namespace kvant
