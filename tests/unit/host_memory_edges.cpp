// What a memory limit does at its edges: sides of unequal shape, pages scattered over slabs, pages that a pinned prefix has left
// behind a window, tiers, room that narrower formats make, and failures of the device in the middle.
#include <doctest/doctest.h>

#include <algorithm>

#include "host_prefix_model.hpp"
#include "memory_planner.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Tokens;

// Formats whose values survive the model's check.
MemoryOptions exact() {
  MemoryOptions options;
  options.ladder = {FormatId::f16};
  return options;
}
MemoryOptions no_formats() {
  MemoryOptions options;
  options.ladder = {};
  return options;
}
std::uint64_t pool_bytes(const PrefixModel& model) { return model.cache->memory_use().pool_bytes; }

// Appends to a new sequence page by page until it is refused; never beyond the limit. Gives the pages that went in.
int grow(PrefixModel& model, std::int32_t first, std::uint64_t limit) {
  const SequenceId id = model.create({}).sequence;
  for (int pages = 0;; ++pages) {
    const Status status = model.append(id, counting(first + pages * 16, 16));
    REQUIRE(pool_bytes(model) <= limit);
    if (!status.ok()) {
      REQUIRE(status.code() == StatusCode::resource_exhausted);
      return pages;
    }
  }
}

TEST_CASE("host memory: sides are planned by their own shape, format and weight") {
  CacheSpec spec = PrefixModel::small(24);
  spec.layers = {{1, 64, 32, FormatId::f32, FormatId::f16, 0, 0}, {2, 32, 96, FormatId::f16, FormatId::f32, 0, 0}};
  for (const std::uint32_t kept : {0u, 1u}) {
    CAPTURE(kept);
    PrefixModel model(spec);
    model.prompt(counting(0, 24 * 16));
    const std::uint64_t before = pool_bytes(model);
    CHECK(model.cache->plan_limit(0, exact()).value().bytes_before == before);
    CHECK(model.cache->plan_limit(0, exact()).value().actions.empty());
    // Each layer has one side that can become narrower.
    REQUIRE(model.cache->set_sensitivity(kept, kept == 0 ? Side::k : Side::v, -1.0).ok());
    const MemoryPlan plan = model.cache->plan_limit(before - 1, exact()).value();
    REQUIRE(plan.actions.size() == 1);
    CHECK(plan.actions[0].layer == 1 - kept);
    CHECK(plan.actions[0].side == (kept == 0 ? Side::v : Side::k));
    REQUIRE(model.cache->set_memory_limit(before - 1, exact()).ok());
    CHECK(pool_bytes(model) == plan.bytes_after);
    CHECK(model.cache->spec().layers[kept] == spec.layers[kept]);
    model.check_all();
  }
}

TEST_CASE("host memory: one call gives all keys one format and all values the other") {
  PrefixModel model(PrefixModel::small(8));
  model.prompt(counting(0, 40));
  REQUIRE(model.cache->quantize_all(FormatId::bf16, FormatId::f32).ok());
  for (const LayerSpec& layer : model.cache->spec().layers) {
    CHECK(layer.format_k == FormatId::bf16);
    CHECK(layer.format_v == FormatId::f32);
  }
  model.check_all();
}

TEST_CASE("host memory: pages that leave for a limit can be had from the tiers") {
  PrefixModel model(PrefixModel::small(24));
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(make_memory_tier(1u << 24));
  REQUIRE(model.cache->set_tiers(std::move(tiers), {}).ok());
  model.destroy(model.prompt(counting(0, 320)).sequence);
  REQUIRE(model.cache->set_memory_limit(pool_bytes(model) / 2, no_formats()).ok());
  model.check_references();
  const PrefixCounters counters = model.cache->prefix_counters().value();
  CHECK(counters.evicted_limit > 0);
  CHECK(counters.spilled == counters.evicted_limit);
  CHECK(counters.pages == 20 - counters.evicted_limit);
  REQUIRE(model.cache->set_memory_limit(0, {}).ok());
  CHECK(model.create(counting(0, 320)).reused_tokens == 320);
  model.check_references();
}

TEST_CASE("host memory: behind a window goes what only the prefix cache holds, whoever runs on") {
  CacheSpec spec = PrefixModel::small(24);
  spec.layers[1].window = 20;
  PrefixModel model(spec);
  const SequenceId a = model.create({}).sequence;
  for (int i = 0; i < 17; ++i) REQUIRE(model.append(a, counting(i * 16, 16)).ok());
  const std::uint64_t limit = pool_bytes(model) * 3 / 4;
  const MemoryPlan plan = model.cache->plan_limit(limit, no_formats()).value();
  CHECK(std::any_of(plan.actions.begin(), plan.actions.end(),
                    [](const MemoryAction& action) { return action.kind == MemoryActionKind::evict && action.group == 1; }));
  const Status status = model.cache->set_memory_limit(limit, no_formats());
  REQUIRE_MESSAGE(status.ok(), status.message());
  CHECK(pool_bytes(model) <= limit);
  CHECK(model.cache->prefix_counters().value().pages == 17);
  model.check_all();
  model.check_references();
  REQUIRE(model.append(a, counting(1000, 4)).ok());
  model.check_all();
}

TEST_CASE("host memory: a limit holds afterwards, wherever the pages stood") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    PrefixModel model(PrefixModel::small(36), 3);
    cache_debug(*model.cache).shuffle_free_pages(seed, true);
    model.prompt(counting(0, 5 * 16 + 3));
    // So much as is allocated; nothing needs to go, but pages may stand in slabs beyond those that it pays for.
    const std::uint64_t limit = pool_bytes(model);
    CHECK(model.cache->plan_limit(limit, no_formats()).value().actions.empty());
    REQUIRE(model.cache->set_memory_limit(limit, no_formats()).ok());
    model.check_references();
    CHECK(grow(model, 5000, limit) > 0);
    model.check_all();
    model.check_references();
    // What moved is where new pages do not go, and what is let go can be taken again.
    while (!model.sequences.empty()) model.destroy(model.sequences.begin()->first);
    REQUIRE(model.cache->clear_prefixes().ok());
    CHECK(grow(model, 9000, limit) > 0);
    model.check_all();
  }
}

TEST_CASE("host memory: narrower formats make room under the same limit") {
  CacheSpec spec = PrefixModel::small(48);
  spec.layers = {{1, 32, 32, FormatId::f32, FormatId::f32, 0, 0}};
  spec.prefix_cache = true;
  spec.policy.kind = PolicyKind::none;
  PrefixModel model(spec);
  const SequenceId a = model.prompt(counting(0, 12 * 16)).sequence;
  const std::uint64_t limit = pool_bytes(model);
  REQUIRE(model.cache->set_memory_limit(limit, no_formats()).ok());
  CHECK(model.append(a, counting(12 * 16, 16)).code() == StatusCode::resource_exhausted);
  REQUIRE(model.cache->convert(0, Side::k, FormatId::f16).ok());
  REQUIRE(model.cache->convert(0, Side::v, FormatId::f16).ok());
  CHECK(grow(model, 7000, limit) == 12);
  model.check_all();
  // Both values of each change are told.
  REQUIRE(model.cache->set_memory_limit(limit + 1, no_formats()).ok());
  std::vector<Event> changes;
  for (const Event& event : model.cache->events(0, 4096).events)
    if (event.kind == EventKind::limit_changed) changes.push_back(event);
  REQUIRE(changes.size() == 2);
  CHECK(changes[0].a == 0);
  CHECK(changes[0].b == limit);
  CHECK(changes[1].a == limit);
  CHECK(changes[1].b == limit + 1);
}

TEST_CASE("host memory: a device that fails in the middle costs pages of nobody") {
  int failures = 0;
  for (int which = 0; which < 3; ++which)
    for (int n = 0; n < 30; ++n) {
      CAPTURE(which);
      CAPTURE(n);
      PrefixModel model(PrefixModel::small(36), 3);
      cache_debug(*model.cache).shuffle_free_pages(7, true);
      model.prompt(counting(0, 8 * 16 + 3));
      model.destroy(model.prompt(counting(2000, 6 * 16)).sequence);
      const std::uint64_t limit = pool_bytes(model) * 6 / 10;
      int& countdown = which == 0 ? model.executor.fail_create : which == 1 ? model.executor.fail_stage : model.executor.fail_submit;
      countdown = n;
      const bool failed = !model.cache->set_memory_limit(limit, exact()).ok();
      countdown = -1;
      failures += failed ? 1 : 0;
      model.check_all();
      model.check_references();
      REQUIRE(model.cache->set_memory_limit(limit, exact()).ok());
      CHECK(pool_bytes(model) <= limit);
      grow(model, 5000, limit);
      model.check_all();
      model.check_references();
      if (!failed) break;
    }
  CHECK(failures >= 2);
}

}  // namespace
}  // namespace kvant
