// A batch put into the store is there whole or not at all: rows that do not fit at once, and failures of the device at any point.
#include <doctest/doctest.h>

#include "cache.hpp"
#include "host_random.hpp"
#include "host_test_executor.hpp"
#include "tensor_store.hpp"

namespace kvant {
namespace {

using Tokens = std::vector<std::int32_t>;
constexpr std::uint32_t kRow = 32;

Tokens prompt(std::int32_t seed, std::size_t length) {
  Tokens tokens(length);
  for (std::size_t i = 0; i < length; ++i) tokens[i] = seed * 1000 + static_cast<std::int32_t>(i);
  return tokens;
}

std::vector<float> rows_of(const Tokens& tokens, std::uint32_t layer) {
  std::vector<float> rows;
  for (const std::int32_t token : tokens)
    for (std::uint32_t i = 0; i < kRow; ++i) rows.push_back(static_cast<float>(token) + static_cast<float>(layer) / 4);
  return rows;
}

struct BatchStore {
  test::TestExecutor executor;
  std::unique_ptr<Cache> hot, cold;
  std::unique_ptr<TensorStore> store;

  BatchStore(std::uint32_t layers, std::uint64_t pages, std::uint64_t cold_pages = 0) {
    const auto make = [&](std::uint64_t count) {
      CacheSpec spec;
      spec.layers.assign(layers, {1, kRow, kRow, FormatId::f32, FormatId::f32, 0, 0});
      spec.capacity_tokens = count * 16;
      spec.prefix_cache = true;
      return Cache::create(executor, spec, Log{}).value();
    };
    hot = make(pages);
    if (cold_pages != 0) cold = make(cold_pages);
    StoreSpec spec;
    spec.hot = hot.get();
    spec.cold = cold.get();
    store = TensorStore::create(executor, spec).value();
  }
  Status put(const std::vector<Tokens>& batch, std::uint32_t layer) {
    std::vector<std::vector<float>> data;
    for (const Tokens& tokens : batch) data.push_back(rows_of(tokens, layer));
    std::vector<StorePut> rows(batch.size());
    for (std::size_t i = 0; i < batch.size(); ++i) {
      rows[i].tokens = batch[i];
      rows[i].k.host = rows[i].v.host = reinterpret_cast<std::byte*>(data[i].data());
    }
    return store->put(rows, "", layer);
  }
  bool holds(const Tokens& tokens, std::uint32_t layer) {
    std::vector<float> got(tokens.size() * kRow);
    TensorView view;
    view.host = reinterpret_cast<std::byte*>(got.data());
    const auto found = store->get(tokens, "", layer, view, {});
    REQUIRE_MESSAGE(found.ok(), found.status().message());
    if (found.value()) CHECK(got == rows_of(tokens, layer));
    return found.value();
  }
};

TEST_CASE("host store: a batch that does not fit at once is refused whole") {
  BatchStore store(2, 8);
  REQUIRE(store.put({prompt(1, 32)}, 0).ok());
  const Status refused = store.put({prompt(2, 48), prompt(3, 48), prompt(4, 48)}, 0);  // 9 pages
  CHECK(refused.code() == StatusCode::resource_exhausted);
  for (int seed : {2, 3, 4}) CHECK(store.store->layers_held(prompt(seed, 48), "") == 0);
  CHECK(store.store->counters().puts == 1);
  CHECK(store.hot->memory_use().used_pages <= 2);  // the first prefix, if it did not leave for their room
  REQUIRE(store.put({prompt(2, 48), prompt(3, 48)}, 0).ok());
  CHECK(store.holds(prompt(2, 48), 0));
  CHECK(store.holds(prompt(3, 48), 0));
  // Equal rows are one prefix.
  REQUIRE(store.put({prompt(3, 48), prompt(3, 48)}, 1).ok());
  CHECK(store.store->layers_held(prompt(3, 48), "") == 2);
}

TEST_CASE("host store: a row that moved to the cold cache for the others is there") {
  BatchStore store(1, 4, 8);
  REQUIRE(store.put({prompt(1, 32), prompt(2, 32), prompt(3, 32)}, 0).ok());
  CHECK(store.store->counters().prefixes == 3);
  CHECK(store.store->counters().cold_prefixes == 1);
  for (int seed : {1, 2, 3}) CHECK(store.holds(prompt(seed, 32), 0));
}

TEST_CASE("host store: whatever fails in a batch, what was there stays and nothing else is") {
  const std::vector<Tokens> batch = {prompt(1, 40), prompt(2, 40), prompt(3, 40)};
  int failures = 0, successes = 0;
  for (const std::uint32_t layer : {0u, 1u})  // the last layer publishes
    for (int kind = 0; kind < 3; ++kind)
      for (int at = 0; at < 12; ++at) {
        CAPTURE(layer);
        CAPTURE(kind);
        CAPTURE(at);
        BatchStore store(2, 16);
        REQUIRE(store.put({prompt(9, 20)}, 0).ok());
        REQUIRE(store.put({batch[1]}, 0).ok());
        if (layer == 1) REQUIRE(store.put(batch, 0).ok());
        const std::uint64_t puts = store.store->counters().puts, pages = store.hot->memory_use().used_pages;
        int& countdown = kind == 0   ? store.executor.fail_submit
                         : kind == 1 ? store.executor.fail_stage
                                     : store.executor.fail_create;
        countdown = at;
        const Status status = store.put(batch, layer);
        countdown = -1;
        if (status.ok()) {
          ++successes;
          for (const Tokens& tokens : batch) CHECK(store.holds(tokens, layer));
          continue;
        }
        ++failures;
        CHECK(store.store->counters().puts == puts);
        CHECK(store.hot->memory_use().used_pages == pages);
        for (std::size_t i = 0; i < batch.size(); ++i) {
          CHECK(store.holds(batch[i], layer) == (layer == 0 && i == 1));
          CHECK(store.holds(batch[i], 1 - layer) == (layer == 1));
        }
        CHECK(store.holds(prompt(9, 20), 0));
        // It works the next time, over what was taken back.
        REQUIRE(store.put(batch, layer).ok());
        for (const Tokens& tokens : batch) CHECK(store.holds(tokens, layer));
        if (layer == 0) REQUIRE(store.put(batch, 1).ok());
        for (const Tokens& tokens : batch) {
          CHECK(store.store->layers_held(tokens, "") == 2);
          SequenceSpec prefix;
          prefix.tokens = tokens;
          CHECK(store.hot->find_prefix(prefix).value() == 32);
        }
      }
  CHECK(failures >= 10);
  CHECK(successes >= 10);
}

}  // namespace
}  // namespace kvant
