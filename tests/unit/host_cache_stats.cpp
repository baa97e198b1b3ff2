// What a cache counts, against what was done with it.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "host_cache_model.hpp"
#include "host_prefix_model.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;

TEST_CASE("host stats: pages, bytes, sequences and lookups are those that were made") {
  PrefixModel model(PrefixModel::small(8));
  const SequenceId a = model.prompt(counting(0, 50)).sequence;
  const SequenceId b = model.fork(a, 40);
  const SequenceId c = model.create(counting(0, 50)).sequence;
  const CacheStats stats = model.cache->stats();
  CHECK(stats.policy == "lru");
  CHECK(stats.capacity_tokens == 128);
  CHECK(stats.pool.total_pages == 16);
  CHECK(stats.pool.used_pages == 10);  // four of a, one of its own of b, in two groups
  CHECK(stats.pool.shared_pages == 6);
  CHECK(stats.pool.index_pages == 0);
  CHECK(stats.pool.tail_waste_tokens == 2 * (14 + 8));
  CHECK(stats.pool.used_bytes == 5 * 16 * (32 * 2 * 2 + 2 * 32 * (4 + 2)));
  REQUIRE(stats.layers.size() == 2);
  CHECK(stats.layers[1].format_k == "f32");
  CHECK(stats.layers[0].used_bytes == 5 * 16 * 32 * 2 * 2);
  CHECK(stats.layers[0].allocated_bytes + stats.layers[1].allocated_bytes == stats.pool.pool_bytes);
  CHECK(stats.layers[1].appended_tokens == 50);
  REQUIRE(stats.sequences.size() == 3);
  CHECK(stats.sequences[0].tokens == 50);
  CHECK(stats.sequences[0].pages == 8);
  CHECK(stats.sequences[0].shared_pages == 6);
  CHECK(stats.sequences[1].reused_tokens == 40);
  CHECK(stats.sequences[2].reused_tokens == 48);
  CHECK(stats.lookups.queries_tokens == 100);
  CHECK(stats.lookups.hit_tokens == 48);
  CHECK(stats[Operation::plan].count() == 1);
  CHECK(stats[Operation::run].count() == 2);
  CHECK(stats[Operation::commit].count() == 1);
  CHECK(stats[Operation::lookup].count() == 2);
  for (const SequenceId id : {a, b, c}) model.destroy(id);
  REQUIRE(model.cache->clear_prefixes().ok());
  CHECK(model.cache->stats().evictions[EvictionCause::cleared] == 3);
  CHECK(nlohmann::json::parse(stats_json(model.cache->stats())).is_object());
  CHECK(stats_prometheus(model.cache->stats(), {}).ok());
}

TEST_CASE("host stats: the index shares a sequence's pages, and no page of the pool") {
  PrefixModel model(PrefixModel::small(8));
  model.prompt(counting(0, 50));
  CacheStats stats = model.cache->stats();
  CHECK(stats.sequences[0].shared_pages == 6);  // three full pages of two groups: they stay when the sequence ends
  CHECK(stats.pool.shared_pages == 0);
  model.create(counting(0, 50));
  stats = model.cache->stats();
  CHECK(stats.sequences[0].shared_pages == 6);
  CHECK(stats.sequences[1].shared_pages == 6);
  CHECK(stats.pool.shared_pages == 6);
}

TEST_CASE("host stats: events tell what happened, in order") {
  PrefixModel model(PrefixModel::small(2));
  const SequenceId a = model.prompt(counting(0, 16)).sequence;
  model.prompt(counting(0, 20));
  model.destroy(a);
  PolicySpec policy;
  policy.kind = PolicyKind::window;
  REQUIRE(model.cache->set_policy(policy).ok());
  REQUIRE(model.cache->convert(1, Side::k, FormatId::f16).ok());
  const EventBatch batch = model.cache->events(0, 100);
  std::vector<EventKind> kinds;
  for (const Event& event : batch.events) kinds.push_back(event.kind);
  CHECK(kinds == std::vector<EventKind>{EventKind::prefix_miss, EventKind::sequence_created, EventKind::page_published,
                                        EventKind::prefix_hit, EventKind::sequence_created, EventKind::sequence_destroyed,
                                        EventKind::policy_changed, EventKind::convert});
  CHECK(batch.events[3].a == 20);
  CHECK(batch.events[3].b == 16);
  CHECK(batch.events[6].b == static_cast<std::uint64_t>(PolicyKind::window));
  CHECK(batch.events[7].a == 1);
  CHECK(model.cache->events(batch.next, 100).events.empty());
}

TEST_CASE("host stats: the quantization error is measured on a token of so many") {
  CacheSpec spec;
  spec.layers = {{2, 64, 64, FormatId::f32, FormatId::q4_0, 0, 0}, {2, 64, 64, FormatId::q8_0, FormatId::f16, 0, 0}};
  spec.capacity_tokens = 512;
  test::CacheModel model(spec, 64, 3);
  const SequenceId a = model.create();
  model.cache->sample_errors(10);
  for (const std::uint32_t tokens : {1u, 9u, 1u, 35u, 100u}) model.step({test::entry(a, tokens, 1)});
  // Tokens 0, 10, 20 (of a step of 35: one a step) and 50.
  const CacheStats stats = model.cache->stats();
  REQUIRE(stats.quantization.size() == 4);
  for (const QuantizationError& error : stats.quantization) CHECK(error.samples == 4 * 2);
  const auto mse = [&](std::size_t i) { return *stats.quantization[i].relative_mse(); };
  CHECK(mse(0) == 0.0);
  CHECK(mse(1) > 0.003);
  CHECK(mse(1) < 0.02);
  CHECK(mse(2) > 1e-6);
  CHECK(mse(2) < 1e-4);
  CHECK(mse(3) < 1e-6);
  model.cache->sample_errors(0);
  model.step({test::entry(a, 50, 0)});
  CHECK(model.cache->stats().quantization[0].samples == 8);
}

}  // namespace
}  // namespace kvant
