// The prefix cache where sequences and the index hold different pages of a node: written over, merged, shed.
#include <doctest/doctest.h>

#include "host_prefix_model.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;

// Every token of one layer anew, in pages that the sequence then holds alone.
Status write_over(PrefixModel& model, SequenceId id, std::uint32_t layer, std::uint64_t tokens) {
  const LayerSpec& facts = model.spec.layers[layer];
  std::vector<float> rows(tokens * facts.kv_heads * facts.head_dim_k, 1.0f);
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(rows.data());
  return model.cache->write(id, layer, 0, tokens, view, view);
}

TEST_CASE("host prefix: only pages that nobody else holds are shed") {
  std::vector<PagePool> pools;
  pools.emplace_back(8, 4);
  PolicySpec lru;
  lru.capacity_entries = 8;
  PrefixIndex index({}, 16, pools, EvictionPolicy::create(lru).value());
  PrefixNode* node = index.root("");
  std::vector<std::int32_t> pages;
  for (int i = 0; i < 5; ++i) {
    pages.push_back(pools[0].take(kNoPage));
    node = index.insert(node, counting(i * 16, 16), std::span(pages).last(1), {}, 1);
    REQUIRE(node != nullptr);
  }
  for (const int i : {1, 3}) pools[0].release(static_cast<std::uint32_t>(pages[static_cast<std::size_t>(i)]));
  CHECK(index.shed_group(0, 8) == 2);
  CHECK(pools[0].used_pages() == 3);
  for (const PrefixNode* left : index.nodes()) CHECK((left->pages[0] == kNoPage) == (left->depth == 2 || left->depth == 4));
  CHECK(index.shed_group(0, 8) == 0);
  for (const int i : {0, 2, 4}) pools[0].release(static_cast<std::uint32_t>(pages[static_cast<std::size_t>(i)]));
  CHECK(index.shed_group(0, 1) == 1);  // no more than are wanted
}

TEST_CASE("host prefix: a page that a sequence holds makes no room, and the next one goes as well") {
  PrefixModel model(PrefixModel::small(8));
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(make_memory_tier(1u << 24));
  REQUIRE(model.cache->set_tiers(std::move(tiers), {}).ok());
  const SequenceId a = model.prompt(counting(0, 32)).sequence;
  REQUIRE(write_over(model, a, 0, 32).ok());  // it holds the other layer's published pages still
  model.now_ms += 10;
  model.destroy(model.prompt(counting(100, 32)).sequence);
  model.now_ms += 10;
  const SequenceId d = model.prompt(counting(200, 32)).sequence;
  REQUIRE(write_over(model, d, 1, 32).ok());
  model.now_ms += 10;
  const SequenceId fork = model.cache->fork_sequence(d, 32).value();
  REQUIRE(model.used_pages() == 16);
  const Status written = write_over(model, fork, 1, 32);
  CHECK_MESSAGE(written.ok(), written.message());
  CHECK(model.cache->prefix_counters().value().evicted_capacity == 4);
  REQUIRE(model.cache->destroy_sequence(fork).ok());
  for (const SequenceId id : {a, d}) model.destroy(id);
  REQUIRE(model.cache->clear_prefixes().ok());
  CHECK(model.used_pages() == 0);
}

TEST_CASE("host prefix: writing a part of a shared page leaves the others' as it is") {
  PrefixModel model(PrefixModel::small(12));
  const SequenceId a = model.prompt(counting(0, 48)).sequence, fork = model.fork(a, 48);
  REQUIRE(write_over(model, a, 1, 40).ok());  // ends within the third page
  model.check(fork);
  CHECK(model.used_pages() == 3 + 3 + 3);
}

TEST_CASE("host prefix: computing again what is there is a use of it") {
  PrefixModel model(PrefixModel::small(8));
  const SequenceId a = model.create(counting(0, 32)).sequence, b = model.create(counting(0, 32)).sequence;
  REQUIRE(model.append(a, counting(0, 32), false).ok());
  model.destroy(a);
  model.now_ms += 10;
  model.destroy(model.prompt(counting(100, 32)).sequence);
  model.now_ms += 10;
  REQUIRE(model.append(b, counting(0, 32), false).ok());  // merged
  CHECK(model.cache->prefix_counters().value().merged == 2);
  std::uint64_t most_uses = 0;
  for (const PrefixNode* node : cache_debug(*model.cache).prefix_index()->nodes())
    most_uses = std::max<std::uint64_t>(most_uses, node->uses);
  CHECK(most_uses >= 1);
  model.destroy(b);
  const SequenceId fresh = model.prompt(counting(300, 80)).sequence;  // one page more than are free
  CHECK(model.create(counting(0, 32)).reused_tokens == 32);
  CHECK(model.create(counting(100, 32)).reused_tokens == 16);
  model.check(fresh);
  model.check_references();
}

}  // namespace
}  // namespace kvant
