// The memory planner and what it does to a cache: limits are met, sequences in use lose nothing but precision, nothing happens that was
// not planned.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "host_cache_model.hpp"
#include "host_prefix_model.hpp"
#include "memory_planner.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Random;
using test::Tokens;

MemoryState state_of(std::uint32_t held, std::uint32_t index, std::uint32_t slabs) {
  MemoryState state;
  MemoryLayer layer;
  layer.head_dim = {64, 64};
  layer.format = {FormatId::f16, FormatId::f16};
  state.layers = {layer, layer};
  state.groups = {{4, 64, held, index, slabs}};
  return state;
}

std::vector<MemoryActionKind> kinds(const MemoryPlan& plan) {
  std::vector<MemoryActionKind> kinds;
  for (const MemoryAction& action : plan.actions) kinds.push_back(action.kind);
  return kinds;
}

TEST_CASE("host memory: what is planned depends on how far down it is") {
  const MemoryState state = state_of(20, 40, 16);
  const std::uint64_t now = allocated_bytes(state);
  CHECK(now == 16ull * 4 * 2 * 2 * 16 * 128);
  using enum MemoryActionKind;
  auto plan = plan_memory(state, now, {});
  CHECK(plan.value().actions.empty());
  CHECK(plan.value().slab_limit == std::vector<std::uint32_t>{16});
  // A slab stands empty.
  plan = plan_memory(state, now * 15 / 16, {});
  CHECK(kinds(plan.value()) == std::vector{resize});
  // Half: pages of the prefix cache go, formats stay.
  plan = plan_memory(state, now / 2, {});
  CHECK(kinds(plan.value()) == std::vector{resize, evict, resize});
  CHECK(plan.value().actions[1].pages == 60 - 32);
  CHECK(plan.value().bytes_after == now / 2);
  // Between: 8 bits first, and only as many sides as it takes.
  plan = plan_memory(state, now * 4 / 10, {});
  REQUIRE(plan.value().actions.size() >= 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(plan.value().actions[i].kind == convert);
    CHECK(plan.value().actions[i].to == FormatId::q8_0);
  }
  CHECK(plan.value().actions[0].side == Side::v);  // of lesser weight
  // Below a quarter: as narrow as it takes, before the prefix cache goes.
  plan = plan_memory(state, now / 5, {});
  const std::vector<MemoryActionKind> deep = kinds(plan.value());
  CHECK(std::count(deep.begin(), deep.end(), convert) == 8);
  CHECK(plan.value().bytes_after <= now / 5);
  // What sequences hold does not fit.
  plan = plan_memory(state, now / 20, {});
  CHECK(plan.status().code() == StatusCode::resource_exhausted);
  CHECK(plan.status().message().find("takes 46080 bytes") != std::string::npos);  // 5 slabs in q4_0
}

TEST_CASE("host memory: a weight keeps a side wide, a negative one for ever") {
  MemoryState state = state_of(64, 0, 16);
  state.layers[0].weight = {-1.0, 5000.0};
  const auto plan = plan_memory(state, allocated_bytes(state) * 7 / 10, {});
  REQUIRE(plan.ok());
  for (const MemoryAction& action : plan.value().actions) CHECK(action.layer == 1);
  const auto all = plan_memory(state, allocated_bytes(state) / 2, {});
  REQUIRE(all.ok());
  for (const MemoryAction& action : all.value().actions) CHECK_FALSE((action.layer == 0 && action.side == Side::k));
}

TEST_CASE("host memory: what counts is the error that is added, not the error there is") {
  // q8_0 to q4_0 on 64 elements against q5_1 to q4_0 on 160: a narrow side has little left to lose.
  MemoryState state;
  MemoryLayer wide, narrow;
  wide.head_dim = {64, 32};
  wide.format = {FormatId::q8_0, FormatId::q4_0};
  narrow.head_dim = {160, 32};
  narrow.format = {FormatId::q5_1, FormatId::q4_0};
  wide.weight = narrow.weight = {1.0, 1.0};
  state.layers = {wide, narrow};
  state.groups = {{4, 64, 64, 0, 16}};
  const auto plan = plan_memory(state, allocated_bytes(state) - 1, {});
  REQUIRE(plan.ok());
  REQUIRE(plan.value().actions.size() == 1);
  CHECK(plan.value().actions[0].layer == 1);
}

TEST_CASE("host memory: a plan's bytes are those of its actions, one after the other") {
  Random random(3);
  for (int i = 0; i < 400; ++i) {
    MemoryState state;
    const std::uint32_t groups = random.between(1, 3);
    for (std::uint32_t g = 0; g < groups; ++g) {
      MemoryGroup group;
      group.pages_per_slab = random.between(1, 9);
      group.total_pages = random.between(1, 100);
      group.allocated_slabs = random.below((group.total_pages + group.pages_per_slab - 1) / group.pages_per_slab + 1);
      group.held_pages = random.below(std::min(group.total_pages, group.allocated_slabs * group.pages_per_slab) + 1);
      group.index_pages =
          random.below(std::min(group.total_pages, group.allocated_slabs * group.pages_per_slab) - group.held_pages + 1);
      state.groups.push_back(group);
    }
    for (std::uint32_t l = 0; l < random.between(groups, 6); ++l) {
      MemoryLayer layer;
      layer.group = l < groups ? l : random.below(groups);
      layer.head_dim = {random.between(4, 10) * 8, random.between(4, 10) * 8};
      layer.format = {FormatId::f32, random.chance(50) ? FormatId::f16 : FormatId::q5_1};
      layer.weight = {random.chance(20) ? -1.0 : 1.0, 0.5};
      state.layers.push_back(layer);
    }
    for (std::uint32_t l = 0; l < groups; ++l)
      if (l >= state.layers.size()) state.layers.push_back({l, 1, {64, 64}, {FormatId::f16, FormatId::f16}});
    const std::uint64_t now = allocated_bytes(state), limit = now * random.below(110) / 100;
    const auto plan = plan_memory(state, limit, {});
    if (!plan.ok()) continue;
    std::uint64_t bytes = now;
    CHECK(plan.value().bytes_before == now);
    for (const MemoryAction& action : plan.value().actions) {
      CHECK(action.bytes_before == bytes);
      CHECK(action.bytes_after <= action.bytes_before);
      bytes = action.bytes_after;
    }
    CHECK(plan.value().bytes_after == bytes);
    CHECK(bytes <= limit);
    for (std::uint32_t g = 0; g < groups; ++g)
      CHECK(plan.value().slab_limit[g] * state.groups[g].pages_per_slab >= state.groups[g].held_pages);
  }
}

TEST_CASE("host memory: what a cache takes is a limit that it keeps to, whatever its last slab holds") {
  for (const std::uint64_t pages : {1, 7, 8, 9, 25, 31}) {
    CAPTURE(pages);
    CacheSpec spec;
    spec.layers = {{2, 64, 64, FormatId::f16, FormatId::q8_0, 0, 0}, {1, 32, 64, FormatId::f16, FormatId::f16, 0, 0}};
    spec.capacity_tokens = pages * 16;
    test::CacheModel model(spec, 8, pages);
    const SequenceId id = model.create();
    model.step({test::entry(id, static_cast<std::uint32_t>(pages * 16), 0)});
    const std::uint64_t bytes = model.cache->memory_use().pool_bytes;
    const auto plan = model.cache->plan_limit(bytes, {});
    REQUIRE_MESSAGE(plan.ok(), plan.status().message());
    CHECK(plan->bytes_before == bytes);
    CHECK(plan->actions.empty());
    CHECK_FALSE(model.cache->plan_limit(bytes - 1, {})->actions.empty());
    REQUIRE(model.cache->set_memory_limit(bytes, {}).ok());
    CHECK(model.cache->convert(0, Side::v, FormatId::f16).code() == StatusCode::resource_exhausted);
    model.truncate(id, 0);
    model.step({test::entry(id, static_cast<std::uint32_t>(pages * 16), 0)});
    CHECK(model.cache->memory_use().pool_bytes == bytes);
  }
}

TEST_CASE("host memory: every limit that can be met is met, and what sequences hold stays") {
  for (const int percent : {100, 90, 75, 60, 50, 45, 30, 26}) {
    CAPTURE(percent);
    PrefixModel model(PrefixModel::small(24));
    const SequenceId a = model.prompt(counting(0, 50)).sequence;
    model.destroy(model.prompt(counting(500, 200)).sequence);
    const SequenceId b = model.prompt(counting(900, 70)).sequence;
    const std::uint64_t before = model.cache->memory_use().pool_bytes, limit = before * static_cast<std::uint64_t>(percent) / 100;
    const std::string text = model.cache->plan_limit_text(limit, {}).value();
    CHECK(model.cache->memory_use().pool_bytes == before);
    const MemoryPlan plan = model.cache->plan_limit(limit, {}).value();
    CHECK(text.find("limit " + std::to_string(limit)) == 0);
    const Status status = model.cache->set_memory_limit(limit, {});
    REQUIRE_MESSAGE(status.ok(), status.message());
    CHECK(model.cache->memory_use().pool_bytes <= limit);
    CHECK(model.cache->memory_use().pool_bytes <= plan.bytes_after);
    CHECK(model.executor.live_bytes() <= limit + (1u << 16));  // and small tables
    bool exact = true;
    for (const MemoryAction& action : plan.actions) exact = exact && action.kind != MemoryActionKind::convert;
    CHECK(exact == (percent >= 50));
    if (exact) model.check_all();
    model.check_references();
    for (const SequenceId id : {a, b}) CHECK(model.cache->sequence_length(id).value() == model.sequences[id].tokens.size());
    // Nothing grows beyond it, whatever is asked.
    for (int i = 0; i < 20; ++i) {
      const SequenceStart start = model.cache->create_sequence(SequenceSpec{}).value();
      model.sequences[start.sequence] = {};
      const Status appended = model.append(start.sequence, counting(10000 + i * 100, 40));
      CHECK((appended.ok() || appended.message().find("memory limit of") != std::string::npos));
      CHECK(model.cache->memory_use().pool_bytes <= limit);
    }
    if (exact) model.check_all();
    model.check_references();
    REQUIRE(model.cache->set_memory_limit(0, {}).ok());
    CHECK(model.cache->stats().limit_bytes == 0);
    const SequenceStart more = model.cache->create_sequence(SequenceSpec{}).value();
    model.sequences[more.sequence] = {};
    CHECK(model.append(more.sequence, counting(50000, 16)).ok() == (percent < 100 || model.used_pages() > 0));
  }
}

TEST_CASE("host memory: a limit below what sequences hold is refused and changes nothing") {
  PrefixModel model(PrefixModel::small(24));
  model.prompt(counting(0, 200));
  const std::uint64_t before = model.cache->memory_use().pool_bytes;
  CHECK(model.cache->set_memory_limit(before / 20, {}).code() == StatusCode::resource_exhausted);
  CHECK(model.cache->memory_use().pool_bytes == before);
  CHECK(model.cache->spec().layers[0].format_k == FormatId::f16);
  model.check_all();
  // Under a limit a layer cannot be made wide again.
  REQUIRE(model.cache->set_memory_limit(before, {}).ok());
  CHECK(model.cache->convert(0, Side::k, FormatId::f32).code() == StatusCode::resource_exhausted);
  REQUIRE(model.cache->convert(1, Side::k, FormatId::f16).ok());
  REQUIRE(model.cache->convert(0, Side::k, FormatId::f32).ok());
  model.check_all();
  StepEntry entry;
  entry.sequence = model.sequences.begin()->first;
  entry.append = 1;
  auto step = model.cache->plan({&entry, 1});
  CHECK(model.cache->set_memory_limit(before, {}).code() == StatusCode::failed_precondition);
}

TEST_CASE("host memory: pages that leave for a limit go to the tiers; policy none keeps them") {
  PrefixModel model(PrefixModel::small(24, PolicyKind::none));
  model.destroy(model.prompt(counting(0, 300)).sequence);
  const std::uint64_t before = model.cache->memory_use().pool_bytes;
  CHECK(model.cache->set_memory_limit(before / 20, {}).code() == StatusCode::resource_exhausted);
  CHECK(model.cache->prefix_counters().value().pages == 18);
  PolicySpec lru;
  REQUIRE(model.cache->set_policy(lru).ok());
  REQUIRE(model.cache->set_memory_limit(before / 2, {}).ok());
  CHECK(model.cache->prefix_counters().value().evicted_limit > 0);
  CHECK(model.cache->prefix_counters().value().evicted_capacity == 0);
  CHECK(model.create(counting(0, 300)).reused_tokens > 0);
  model.check_references();
}

TEST_CASE("host memory: random limits and random work agree with the plain model") {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(seed);
    CacheSpec spec = PrefixModel::small(30);
    spec.layers[1].format_k = FormatId::f16;
    if (seed % 2 == 0) spec.layers[1].window = 40;
    PrefixModel model(spec, 2);
    cache_debug(*model.cache).shuffle_free_pages(seed, true);
    Random random(seed);
    MemoryOptions formats;
    formats.ladder = {FormatId::f16};  // what the model's values survive
    for (int i = 0; i < 120; ++i) {
      CAPTURE(i);
      if (random.chance(30)) {
        const std::uint64_t limit = 20000 + random.below(160000);
        const Status status = model.cache->set_memory_limit(limit, formats);
        REQUIRE((status.ok() || status.code() == StatusCode::resource_exhausted));
        if (status.ok()) REQUIRE(model.cache->memory_use().pool_bytes <= limit);
      } else if (random.chance(50) || model.sequences.empty()) {
        const Tokens prompt = counting(static_cast<std::int32_t>(random.below(4)) * 1000, random.between(1, 90));
        const SequenceStart start = model.create(prompt);
        const Tokens rest(prompt.begin() + static_cast<std::ptrdiff_t>(start.reused_tokens), prompt.end());
        if (!rest.empty()) {
          const Status status = model.append(start.sequence, rest, false);
          REQUIRE((status.ok() || status.code() == StatusCode::resource_exhausted));
        }
      } else {
        model.destroy(model.sequences.begin()->first);
      }
      model.check_references();
      if (i % 10 == 0) model.check_all();
    }
    model.check_all();
  }
}

}  // namespace
}  // namespace kvant
