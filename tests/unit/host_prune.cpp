// Pruning: which tokens stay, that what stays is what was there wherever it is put, that attention over it is attention over it
// alone, and that limits below a quarter are met by it.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "host_cache_model.hpp"
#include "memory_planner.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;
using Places = std::vector<std::uint64_t>;

CacheSpec prune_spec(std::uint64_t tokens) {
  CacheSpec spec;
  spec.capacity_tokens = tokens;
  spec.attention_mass = true;
  spec.layers = {
      {2, 32, 32, FormatId::f32, FormatId::f16, 0, 0},
      {1, 40, 64, FormatId::q8_0, FormatId::nf4, 0, 0},
      {2, 32, 32, FormatId::q5_1, FormatId::nf4_dq, 0, 0},
  };
  return spec;
}

CacheSpec window_spec(std::uint64_t tokens) {
  CacheSpec spec = prune_spec(tokens);
  spec.layers[1].window = 20;
  spec.layers[1].window_sinks = 2;
  return spec;
}

// What pruning is documented to keep, from the masses that the cache gives.
Places expected_places(Cache& cache, SequenceId id, std::uint64_t keep, std::uint64_t sinks, std::uint64_t recent) {
  const std::uint64_t length = cache.sequence_length(id).value();
  std::vector<float> mass(length);
  REQUIRE(cache.attention_mass(id, {}, {}, 0, mass).ok());
  Places middle(length - sinks - recent), places;
  std::iota(middle.begin(), middle.end(), sinks);
  std::stable_sort(middle.begin(), middle.end(), [&](std::uint64_t a, std::uint64_t b) {
    return mass[a] != mass[b] ? mass[a] > mass[b] : a > b;
  });
  for (std::uint64_t t = 0; t < sinks; ++t) places.push_back(t);
  places.insert(places.end(), middle.begin(), middle.begin() + static_cast<std::ptrdiff_t>(keep - sinks - recent));
  for (std::uint64_t t = length - recent; t < length; ++t) places.push_back(t);
  std::sort(places.begin(), places.end());
  return places;
}

Places first_places(std::uint64_t count) {
  Places places(count);
  std::iota(places.begin(), places.end(), std::uint64_t{0});
  return places;
}

// The model's tokens without those that are not kept.
void keep_in_model(CacheModel& model, SequenceId id, const Places& kept) {
  CacheModel::Tokens& tokens = model.sequences[id];
  const auto keep = [&](auto& rows, std::size_t row) {
    std::remove_reference_t<decltype(rows)> left;
    for (const std::uint64_t place : kept)
      left.insert(left.end(), rows.begin() + static_cast<std::ptrdiff_t>(place * row),
                  rows.begin() + static_cast<std::ptrdiff_t>((place + 1) * row));
    rows = left;
  };
  for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer) {
    const std::uint32_t heads = model.spec.layers[layer].kv_heads;
    for (const Side side : {Side::k, Side::v})
      for (auto* all : {&tokens.layers, &tokens.wide}) keep((*all)[layer][static_cast<std::size_t>(side)], std::size_t{heads} * model.dim(layer, side));
    keep(tokens.mass[layer], heads);
    keep(tokens.mass_bound[layer], heads);
  }
  tokens.length = kept.size();
}

TEST_CASE("host prune: sinks, the newest and the heaviest stay, and attention goes on over them alone") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    CAPTURE(seed);
    CacheModel model(prune_spec(512), seed % 2 == 0 ? 3 : 64, seed);
    if (seed % 3 == 0) cache_debug(*model.cache).shuffle_free_pages(seed, true);
    model.options.mass = true;
    const SequenceId id = model.create();
    const std::uint32_t length = model.random.between(40, 140);
    model.step({entry(id, length, length)});
    model.options.mass = model.random.chance(50);
    model.step({entry(id, 1, 1)});
    const std::uint64_t sinks = model.random.below(6), recent = model.random.between(1, 20);
    const std::uint64_t keep = sinks + recent + model.random.below(15);
    const Places expected = expected_places(*model.cache, id, keep, sinks, recent);
    const auto kept = model.cache->prune_sequence(id, {.keep = keep, .sinks = sinks, .recent = recent});
    REQUIRE_MESSAGE(kept.ok(), kept.status().message());
    CHECK(kept.value() == expected);
    CHECK(model.cache->sequence_length(id).value() == keep);
    keep_in_model(model, id, kept.value());
    model.check_reads();
    model.check_masses();
    model.options.mass = true;
    model.step({entry(id, 19, 19)});
    model.check_masses();
  }
}

TEST_CASE("host prune: with a full pool tokens move in place") {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    CAPTURE(seed);
    CacheModel model(prune_spec(128), seed % 2 == 0 ? 2 : 8, seed);
    if (seed % 3 == 0) cache_debug(*model.cache).shuffle_free_pages(seed, true);
    model.options.mass = true;
    const SequenceId id = model.create();
    model.step({entry(id, 128, 128)});
    REQUIRE(model.cache->memory_use().used_pages == model.cache->memory_use().total_pages);
    const std::uint64_t keep = model.random.between(20, 120);
    const auto kept = model.cache->prune_sequence(id, {.keep = keep, .sinks = seed % 5, .recent = 10});
    REQUIRE_MESSAGE(kept.ok(), kept.status().message());
    keep_in_model(model, id, kept.value());
    model.check_reads();
    model.check_masses();
    const std::uint64_t pages = (keep + 15) / 16;
    CHECK(model.cache->memory_use().used_pages == 2 * pages);  // in two layer groups
    model.step({entry(id, 5, 5)});
    model.destroy(id);
    CHECK(model.cache->memory_use().used_pages == 0);
  }
}

TEST_CASE("host prune: pages that others hold are not written, and without free ones nothing changes") {
  CacheModel model(prune_spec(96), 2, 4);
  model.options.mass = true;
  const SequenceId id = model.create();
  model.step({entry(id, 96, 96)});
  model.fork(id, 96);
  const PruneSpec spec{.keep = 40, .sinks = 1, .recent = 8};
  const auto refused = model.cache->prune_sequence(id, spec);
  CHECK(refused.status().code() == StatusCode::resource_exhausted);
  model.check_reads();
  // A fork of a part leaves the others writable.
  model.destroy(std::prev(model.sequences.end())->first);
  model.fork(id, 32);
  const auto kept = model.cache->prune_sequence(id, spec);
  REQUIRE_MESSAGE(kept.ok(), kept.status().message());
  keep_in_model(model, id, kept.value());
  model.check_reads();
}

TEST_CASE("host prune: whatever fails, no page is lost and nothing that others hold changes") {
  int spoiled = 0;
  for (const bool full : {false, true})
    for (int kind = 0; kind < 3; ++kind)
      for (int calls = 0;; ++calls) {
        CAPTURE(full);
        CAPTURE(kind);
        CAPTURE(calls);
        CacheModel model(prune_spec(full ? 96 : 256), 2, 5);
        model.options.mass = true;
        const SequenceId other = model.create(), id = model.create();
        model.step({entry(other, 16, 0), entry(id, 80, 80)});
        const std::uint64_t used = model.cache->memory_use().used_pages;
        (kind == 0 ? model.executor.fail_create : kind == 1 ? model.executor.fail_stage : model.executor.fail_submit) = calls;
        const auto kept = model.cache->prune_sequence(id, {.keep = 40, .sinks = 1, .recent = 8});
        model.executor.fail_create = model.executor.fail_stage = model.executor.fail_submit = -1;
        if (kept.ok()) {
          keep_in_model(model, id, kept.value());
          model.check_reads();
          CHECK((calls > 0 || kind == 0));  // without memory for new slabs tokens move in place
          break;
        }
        const Status status = kept.status();
        CHECK(status.message().find("as the test asked") != std::string::npos);
        // In place a device that fails midway leaves what lies before the first gap.
        const std::uint64_t length = model.cache->sequence_length(id).value();
        CHECK((length == 80 || (full && length % 16 == 0)));
        CHECK((length == 80) == (status.message().find("tokens are left") == std::string::npos));
        CHECK((length != 80 || model.cache->memory_use().used_pages == used));
        spoiled += length != 80;
        if (length != 80) keep_in_model(model, id, first_places(length));
        model.check_reads();
        REQUIRE(model.cache->destroy_sequence(id).ok());
        model.sequences.erase(id);
        model.check_reads();
        REQUIRE(model.cache->destroy_sequence(other).ok());
        CHECK(model.cache->memory_use().used_pages == 0);
      }
  CHECK(spoiled > 0);
}

TEST_CASE("host prune: sliding windows go on seeing what they saw") {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    CAPTURE(seed);
    CacheModel model(window_spec(512), 4, seed);
    model.options.mass = true;
    const SequenceId id = model.create();
    for (int i = 0; i < 6; ++i) model.step({entry(id, 15, 15)});
    const auto kept = model.cache->prune_sequence(id, {.keep = model.random.between(24, 50), .sinks = 1, .recent = 3});
    REQUIRE_MESSAGE(kept.ok(), kept.status().message());
    CHECK(kept.value()[1] == 1);  // the window's sinks and its width stay
    CHECK(kept.value()[kept.value().size() - 20] == 70);
    keep_in_model(model, id, kept.value());
    const std::uint64_t length = kept.value().size();
    // What the window had left is nowhere to be seen, now or later.
    for (int i = 0; i < 4; ++i) model.step({entry(id, 7, 7)});
    const Status cut = model.cache->truncate_sequence(id, length - 1);
    CHECK(cut.code() == StatusCode::failed_precondition);
    model.truncate(id, length + 20);
    model.step({entry(id, 3, 3)});
    // Neither is it after a save and a load, nor by other ways to drop tokens.
    const Status dropped = model.cache->keep_tokens(id, Places{0, 1, 2, 5});
    CHECK(dropped.code() == StatusCode::failed_precondition);
    std::vector<std::byte> saved;
    REQUIRE(model.cache->save_state({.sequences = {&id, 1}}, [&](std::span<const std::byte> bytes) -> Status {
      saved.insert(saved.end(), bytes.begin(), bytes.end());
      return {};
    }).ok());
    std::size_t at = 0;
    const auto loaded = model.cache->load_state([&](std::span<std::byte> out) -> Result<std::size_t> {
      const std::size_t count = std::min(out.size(), saved.size() - at);
      std::copy_n(saved.begin() + static_cast<std::ptrdiff_t>(at), count, out.begin());
      at += count;
      return count;
    });
    REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
    CHECK(model.cache->truncate_sequence(loaded.value()[0].sequence, length - 1).code() == StatusCode::failed_precondition);
    const auto empty = model.cache->fork_sequence(id, 0);
    REQUIRE(empty.ok());
    model.sequences[empty.value()] = model.empty();
    model.step({entry(empty.value(), 10, 10)});
    CHECK(model.cache->truncate_sequence(empty.value(), 5).ok());
    REQUIRE(model.cache->truncate_sequence(id, 0).ok());
  }
}

TEST_CASE("host prune: nothing to do, refusals, ALiBi, events") {
  CacheModel model(prune_spec(256), 4, 6);
  model.options.mass = true;
  const SequenceId id = model.create();
  model.step({entry(id, 60, 60)});
  const auto all = model.cache->prune_sequence(id, {.keep = 80, .sinks = 4, .recent = 10});
  REQUIRE(all.ok());
  CHECK(all.value().size() == 60);
  CHECK(model.cache->prune_sequence(id, {.keep = 13, .sinks = 4, .recent = 10}).status().code() == StatusCode::invalid_argument);
  CHECK(model.cache->prune_sequence(id, {.keep = 5, .sinks = UINT64_MAX, .recent = 10}).status().code() ==
        StatusCode::invalid_argument);
  const std::uint64_t before = model.cache->events(0, 1000).events.size();
  const auto kept = model.cache->prune_sequence(id, {.keep = 30, .sinks = 4, .recent = 10});
  REQUIRE(kept.ok());
  keep_in_model(model, id, kept.value());
  const EventBatch batch = model.cache->events(0, 1000);
  REQUIRE(batch.events.size() == before + 1);
  CHECK(batch.events.back().kind == EventKind::pruned);
  CHECK(batch.events.back().a == 60);
  CHECK(batch.events.back().b == 30);
  CHECK(batch.events.back().sequence == static_cast<std::uint64_t>(id));
  for (const SequenceId pruned : {id, model.cache->fork_sequence(id, 30).value()}) {
    const StepEntry query = entry(pruned, 0, 1);
    auto step = model.cache->plan({&query, 1});
    REQUIRE(step.ok());
    std::vector<float> q(std::size_t{4} * 32), out(q.size()), slopes(4, 0.5f);
    RunArgs args;
    args.q.host = reinterpret_cast<std::byte*>(q.data());
    args.out.host = reinterpret_cast<std::byte*>(out.data());
    args.q_heads = 4;
    args.alibi_slopes = slopes.data();
    const Status status = model.cache->run(*step.value(), 0, args);
    CHECK(status.code() == StatusCode::failed_precondition);
    CHECK_MESSAGE(status.message().find("ALiBi") != std::string::npos, status.message());
    args.alibi_slopes = nullptr;
    CHECK(model.cache->run(*step.value(), 0, args).ok());
    model.cache->abort(std::move(step).value());
  }
}

TEST_CASE("host prune: ids and positions beyond the first gap are refused, and what is to be read back stays whole") {
  CacheSpec spec = prune_spec(512);
  spec.prefix_cache = true;
  CacheModel model(spec, 4, 7);
  model.options.mass = true;
  std::vector<std::int32_t> ids(100);
  std::iota(ids.begin(), ids.end(), 1);
  const SequenceId id = model.create();
  StepEntry prompt = entry(id, 100, 100);
  prompt.tokens = ids.data();
  model.step({prompt});
  const auto kept = model.cache->prune_sequence(id, {.keep = 40, .sinks = 4, .recent = 10});
  REQUIRE(kept.ok());
  std::vector<std::int32_t> left;
  for (const std::uint64_t place : kept.value()) left.push_back(ids[place]);
  CHECK(model.cache->identify(id, left).code() == StatusCode::failed_precondition);
  CHECK(model.cache->identify(id, std::span(left).first(4)).ok());
  StepEntry query = entry(id, 0, 2);
  query.explicit_positions = true;
  query.q_pos_begin = 39;
  CHECK(model.cache->plan({&query, 1}).status().code() == StatusCode::invalid_argument);
  query.q_pos_begin = 38;
  CHECK(model.cache->plan({&query, 1}).ok());
  SequenceSpec whole;
  whole.tokens = ids;
  whole.whole = true;
  const auto start = model.cache->create_sequence(whole);
  REQUIRE(start.ok());
  CHECK(start.value().reused_tokens == 96);
  CHECK(model.cache->prune_sequence(start.value().sequence, {.keep = 40, .sinks = 4, .recent = 10}).status().code() ==
        StatusCode::failed_precondition);
  MemoryOptions options;
  options.prune = true;
  options.recent = 8;
  // Seven pages of it and the little that the other one needs do not fit; the one that may be pruned gives all it can.
  const std::uint64_t slab = model.cache->memory_use().pool_bytes;
  CHECK(model.cache->set_memory_limit(slab / 20, options).code() == StatusCode::resource_exhausted);
  CHECK(model.cache->sequence_length(start.value().sequence).value() == 96);
  REQUIRE(model.cache->truncate_sequence(start.value().sequence, 20).ok());
  for (const SequenceStats& row : model.cache->stats().sequences) CHECK(row.reused_tokens <= row.tokens);
}

TEST_CASE("host prune: limits down to a twentieth are met with the pool in use") {
  for (const bool prefixes : {false, true})
    for (const std::uint32_t percent : {100u, 60u, 40u, 24u, 15u, 10u, 5u}) {
      CAPTURE(prefixes);
      CAPTURE(percent);
      CacheSpec spec = prune_spec(1024);
      spec.prefix_cache = prefixes;
      for (LayerSpec& layer : spec.layers) layer.format_k = layer.format_v = FormatId::f32;
      CacheModel model(spec, 2, percent);
      model.options.mass = true;
      const SequenceId id = model.create();
      std::vector<std::int32_t> tokens(1024);
      std::iota(tokens.begin(), tokens.end(), 7);
      StepEntry prompt = entry(id, 1024, 32);
      prompt.tokens = tokens.data();
      model.step({prompt});
      const std::uint64_t limit = model.cache->memory_use().pool_bytes * percent / 100;
      MemoryOptions options;
      options.prune = true;
      options.sinks = 2;
      options.recent = 8;
      const auto plan = model.cache->plan_limit(limit, options);
      REQUIRE_MESSAGE(plan.ok(), plan.status().message());
      const Status status = model.cache->set_memory_limit(limit, options);
      REQUIRE_MESSAGE(status.ok(), status.message());
      CHECK(model.cache->memory_use().pool_bytes <= limit);
      CHECK(model.cache->memory_use().pool_bytes <= plan.value().bytes_after);
      const std::uint64_t length = model.cache->sequence_length(id).value();
      const bool pruned = std::any_of(plan.value().actions.begin(), plan.value().actions.end(),
                                      [](const MemoryAction& action) { return action.kind == MemoryActionKind::prune; });
      CHECK(pruned == (length != 1024));
      CHECK((percent >= 24 || pruned));
      CHECK(length >= 1024 * percent / 100);
      std::vector<float> row(std::size_t{length} * 2 * 32);
      TensorView view;
      view.host = reinterpret_cast<std::byte*>(row.data());
      CHECK(model.cache->read(id, 0, Side::k, 0, length, view).ok());
      // Without leave to prune, or without masses, such a limit is refused, and the formats stay too.
      CacheModel same(spec, 2, percent);
      const SequenceId kept = same.create();
      same.step({entry(kept, 1024, 1)});
      options.prune = false;
      if (percent < 15) CHECK(same.cache->set_memory_limit(limit, options).code() == StatusCode::resource_exhausted);
    }
}

}  // namespace
}  // namespace kvant
