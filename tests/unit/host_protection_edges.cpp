// Protected tokens at their edges: invariance, drafts that are taken back, windows, conversions, memory limits and memory that is refused.
#include <doctest/doctest.h>

#include <vector>

#include "host_cache_model.hpp"
#include "memory_planner.hpp"
#include "wide_pages.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;

constexpr std::size_t kRow = 64;  // 2 heads of 32

// A cache with layers of 2 heads of 32 elements, fed with rows that depend on (layer, stream, token) alone.
struct Rig {
  explicit Rig(CacheSpec asked, std::uint32_t pages_per_slab = 0) : spec(std::move(asked)) {
    GeometryOptions slabs;
    slabs.max_pages_per_slab = pages_per_slab;
    auto created = create_cache(executor, spec, Log{}, slabs);
    REQUIRE_MESSAGE(created.ok(), created.status().message());
    cache = std::move(created).value();
    cache_debug(*cache).set_poison(test::kNan);
  }
  static std::vector<float> rows(std::uint32_t layer, std::uint32_t stream, std::uint64_t begin, std::uint64_t count) {
    std::vector<float> all;
    for (std::uint64_t t = begin; t < begin + count; ++t) {
      test::Random random{1 + t * 131 + layer * 100003 + stream * 1000003};
      for (std::size_t i = 0; i < kRow; ++i) all.push_back(random.normal());
    }
    return all;
  }
  SequenceId create() { return cache->create_sequence().value(); }
  struct Ask {
    SequenceId id;
    std::uint32_t stream, append, queries;
  };
  // Outputs [layer][query][64] of one step.
  std::vector<std::vector<float>> step(const std::vector<Ask>& asks, bool invariant = false) {
    std::vector<StepEntry> entries;
    std::uint32_t queries = 0, fresh = 0;
    for (const Ask& ask : asks) {
      entries.push_back(entry(ask.id, ask.append, ask.queries));
      queries += ask.queries;
      fresh += ask.append;
    }
    auto planned = cache->plan(entries);
    REQUIRE_MESSAGE(planned.ok(), planned.status().message());
    std::unique_ptr<Step> open = std::move(planned).value();
    std::vector<std::vector<float>> outs;
    for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
      std::vector<float> k, v, q, out(queries * kRow);
      for (const Ask& ask : asks) {
        const std::uint64_t there = cache->sequence_length(ask.id).value();
        const auto add = [](std::vector<float>& to, const std::vector<float>& from) { to.insert(to.end(), from.begin(), from.end()); };
        add(k, rows(layer, ask.stream, there, ask.append));
        add(v, rows(layer + 50, ask.stream, there, ask.append));
        add(q, rows(layer + 90, ask.stream, there + ask.append - ask.queries, ask.queries));
      }
      RunArgs args;
      const auto view = [](std::vector<float>& x) {
        TensorView tensor;
        tensor.host = reinterpret_cast<std::byte*>(x.data());
        return tensor;
      };
      if (fresh != 0) args.k = view(k), args.v = view(v);
      if (queries != 0) args.q = view(q), args.out = view(out);
      args.q_heads = 2;
      args.invariant = invariant;
      const Status status = cache->run(*open, layer, args);
      REQUIRE_MESSAGE(status.ok(), status.message());
      outs.push_back(out);
    }
    REQUIRE(cache->commit(std::move(open)).ok());
    return outs;
  }
  test::TestExecutor executor;
  CacheSpec spec;
  std::unique_ptr<Cache> cache;
};

CacheSpec narrow(std::uint32_t first, std::uint32_t newest, std::uint64_t copies = 2048) {
  CacheSpec spec;
  spec.capacity_tokens = 2048;
  spec.layers = {{2, 32, 32, FormatId::t2, FormatId::t2, 0, 0}};
  spec.protection = {first, newest, true, true, copies};
  return spec;
}
CacheSpec plain() {
  CacheSpec spec = narrow(0, 0);
  spec.protection = {};
  return spec;
}

// kvant.h of KVANT_RUN_INVARIANT: to the bit what each query would get alone in its step.
void check_chain(const CacheSpec& spec) {
  Rig one(spec), chain(spec);
  const SequenceId a = one.create(), b = chain.create();
  one.step({{a, 0, 44, 1}}, true);
  chain.step({{b, 0, 44, 1}}, true);
  const std::vector<float> together = chain.step({{b, 0, 8, 8}}, true)[0];
  std::vector<float> single;
  for (int i = 0; i < 8; ++i) {
    const std::vector<float> out = one.step({{a, 0, 1, 1}}, true)[0];
    single.insert(single.end(), out.begin(), out.end());
  }
  std::size_t differ = 0;
  for (std::size_t i = 0; i < single.size(); ++i) differ += single[i] != together[i];
  CHECK(differ == 0);
}
TEST_CASE("host protection: invariant chain without protection is single steps to the bit") { check_chain(plain()); }
TEST_CASE("host protection: invariant chain with first tokens protected alone is single steps to the bit") { check_chain(narrow(4, 0)); }
TEST_CASE("host protection: invariant chain with newest tokens protected is single steps to the bit") { check_chain(narrow(4, 16)); }

void check_company(const CacheSpec& spec) {
  const auto ask = [&](bool company) {
    Rig rig(spec);
    const SequenceId a = rig.create(), b = rig.create();
    rig.step({{a, 0, 16, 1}});
    if (!company) return rig.step({{a, 0, 8, 8}}, true)[0];
    const std::vector<float> all = rig.step({{b, 1, 320, 1}, {a, 0, 8, 8}}, true)[0];
    return std::vector<float>(all.begin() + kRow, all.end());
  };
  CHECK(ask(false) == ask(true));
}
TEST_CASE("host protection: invariant queries in company, without protection") { check_company(plain()); }
TEST_CASE("host protection: invariant queries in company, with the newest tokens protected") {
  check_company(narrow(0, 16, 20 * 16));
}

TEST_CASE("host protection: drafts that are taken back leave the newest tokens their copies") {
  Rig straight(narrow(0, 16)), drafts(narrow(0, 16));
  const SequenceId a = straight.create(), b = drafts.create();
  straight.step({{a, 0, 40, 0}});
  drafts.step({{b, 0, 40, 0}});
  straight.step({{a, 0, 1, 0}});
  drafts.step({{b, 0, 8, 0}});  // one right, seven wrong
  REQUIRE(drafts.cache->truncate_sequence(b, 41).ok());
  CHECK(drafts.cache->memory_use().used_bytes == straight.cache->memory_use().used_bytes);
  CHECK(straight.step({{a, 0, 1, 1}}) == drafts.step({{b, 0, 1, 1}}));
}

TEST_CASE("host protection: pages that a sliding window has let go are not seen through copies") {
  CacheSpec spec = narrow(16, 0);
  spec.layers[0].window = 32;
  CacheModel model(spec, 16, 3);
  const SequenceId id = model.create();
  for (int i = 0; i < 8; ++i) model.step({entry(id, 16, 1)});
  StepEntry early = entry(id, 0, 1);
  early.explicit_positions = true;
  early.q_pos_begin = 20;
  model.step({early});
}
TEST_CASE("host protection: copies behind a sliding window go with its pages") {
  CacheSpec spec = narrow(16, 256);
  spec.layers[0].window = 32;
  Rig rig(spec);
  const SequenceId id = rig.create();
  for (int i = 0; i < 8; ++i) rig.step({{id, 0, 16, 1}});
  std::uint64_t held = 0;
  const std::vector<std::int32_t> pages = cache_debug(*rig.cache).sequence_pages(id, 0).value();
  for (const std::int32_t page : pages) held += page >= 0;
  const std::uint64_t own = held * 2 * make_side(FormatId::t2, 32, 2, 16).page_bytes;
  CHECK(rig.cache->memory_use().used_bytes - own <= held * 2 * make_side(FormatId::f16, 32, 2, 16).page_bytes);
}

TEST_CASE("host protection: layers that become narrow after the cache was created are protected") {
  CacheSpec spec = narrow(16, 16);
  spec.layers[0].format_k = spec.layers[0].format_v = FormatId::f16;
  CacheModel model(spec, 16, 4);
  REQUIRE(model.cache->quantize_all(FormatId::t2, FormatId::t2).ok());
  const SequenceId id = model.create();
  model.step({entry(id, 40, 4)});
}

TEST_CASE("host protection: converting one layer leaves the copies of others") {
  CacheSpec spec = narrow(16, 16);
  spec.layers.push_back(spec.layers[0]);
  Rig rig(spec);
  const SequenceId id = rig.create();
  rig.step({{id, 0, 40, 1}});
  const auto before = rig.step({{id, 0, 0, 1}});
  REQUIRE(rig.cache->convert(0, Side::k, FormatId::t3).ok());
  CHECK(rig.step({{id, 0, 0, 1}})[1] == before[1]);
}

TEST_CASE("host protection: one slab refused: what there is memory for is protected, the newest first") {
  Rig rig(narrow(0, 16));  // slabs of 35 copies, pages in one slab
  const SequenceId a = rig.create(), b = rig.create();
  rig.executor.fail_create = 2;  // pages, 35 copies, then 25
  const std::vector<StepEntry> entries = {entry(a, 480, 0), entry(b, 480, 0)};
  auto step = rig.cache->plan(entries);
  REQUIRE(step.ok());
  REQUIRE(rig.executor.fail_create == -1);
  const std::uint64_t own = 60 * 2 * make_side(FormatId::t2, 32, 2, 16).page_bytes;
  CHECK(rig.cache->memory_use().used_bytes > own);
}

TEST_CASE("host protection: memory that copies hold is given up before a step fails") {
  Rig rig(narrow(4, 16), 4);
  const SequenceId id = rig.create();
  rig.step({{id, 0, 64, 0}});
  rig.executor.fail_create = 0;  // the second slab of pages: it would fit in the memory of the copies
  const StepEntry next = entry(id, 1, 0);
  const auto step = rig.cache->plan({&next, 1});
  CHECK_MESSAGE(step.ok(), step.status().message());
}

TEST_CASE("host protection: a limit under which there are no copies leaves pages all of it") {
  const auto fits = [](const CacheSpec& spec) {
    Rig rig(spec, 4);
    const std::uint64_t limit = 128 * 2 * make_side(FormatId::t2, 32, 2, 16).page_bytes + (64 << 10) / 8;
    REQUIRE(rig.cache->set_memory_limit(limit, {}).ok());
    const SequenceId id = rig.create();
    std::uint64_t tokens = 0;
    for (StepEntry next = entry(id, 64, 0); tokens < 2048; tokens += 64) {
      auto step = rig.cache->plan({&next, 1});
      if (!step.ok()) break;
      rig.cache->abort(std::move(step).value());
      rig.step({{id, 0, 64, 0}});
    }
    const std::uint64_t pages = (tokens / 16) * 2 * make_side(FormatId::t2, 32, 2, 16).page_bytes;
    CHECK(rig.cache->memory_use().used_bytes == pages);  // no copies
    return tokens;
  };
  CHECK(fits(narrow(16, 32, 0)) == fits(plain()));
}

TEST_CASE("host protection: the same limit again costs no copies") {
  CacheSpec spec = narrow(16, 32, 128 * 16);
  Rig rig(spec, 4);
  const std::uint64_t limit = 2400 << 10;
  REQUIRE(rig.cache->set_memory_limit(limit, {}).ok());
  const SequenceId id = rig.create();
  rig.step({{id, 0, 100, 0}});
  const std::uint64_t used = rig.cache->memory_use().used_bytes;
  REQUIRE(used > 7 * 2 * make_side(FormatId::t2, 32, 2, 16).page_bytes);
  REQUIRE(rig.cache->set_memory_limit(limit, {}).ok());
  CHECK(rig.cache->memory_use().used_bytes == used);
}

// What the slabs take under a limit, filled after K became f32 while the cache was empty.
std::uint64_t filled_after_convert(CacheSpec spec, std::uint64_t limit) {
  spec.capacity_tokens = 8192;
  Rig rig(spec, 4);
  REQUIRE(rig.cache->set_memory_limit(limit, {}).ok());
  REQUIRE(rig.cache->convert(0, Side::k, FormatId::f32).ok());
  const SequenceId id = rig.create();
  for (int i = 0; i < 128; ++i) {
    StepEntry next = entry(id, 64, 0);
    auto step = rig.cache->plan({&next, 1});
    if (!step.ok()) break;
    rig.cache->abort(std::move(step).value());
    rig.step({{id, 0, 64, 0}});
  }
  return rig.cache->memory_use().pool_bytes;
}
TEST_CASE("host memory: a limit holds after a layer of an empty cache was widened") {
  CHECK(filled_after_convert(plain(), 695552) <= 695552);
}
TEST_CASE("host protection: copies keep to their eighth of a limit after a layer whose format they follow was widened") {
  CacheSpec spec = narrow(16, 32, 37 * 16);
  spec.capacity_tokens = 8192;
  spec.protection.k = false;  // copies have K in its layer's format
  Rig rig(spec, 4);
  const std::uint64_t copy = make_side(FormatId::t2, 32, 2, 16).page_bytes + make_side(FormatId::f16, 32, 2, 16).page_bytes;
  const std::uint64_t limit = 8 * 37 * copy + 4096;
  REQUIRE(rig.cache->set_memory_limit(limit, {}).ok());
  REQUIRE(rig.cache->convert(0, Side::k, FormatId::f32).ok());
  const SequenceId id = rig.create();
  rig.step({{id, 0, 16, 1}});
  const std::uint64_t own = 4 * (make_side(FormatId::f32, 32, 2, 16).page_bytes + make_side(FormatId::t2, 32, 2, 16).page_bytes);
  CHECK(rig.cache->memory_use().pool_bytes - own <= limit / 8);
}

TEST_CASE("host protection: one page that is wanted costs the prefix cache one copy, not all") {
  CacheSpec spec = narrow(16, 0, 8 * 16);
  spec.prefix_cache = true;
  Rig rig(spec);
  const auto begin = [&](std::int32_t name) {
    std::vector<std::int32_t> ids(16, name);
    SequenceSpec asked;
    asked.tokens = ids;
    const SequenceId id = rig.cache->create_sequence(asked).value().sequence;
    StepEntry next = entry(id, 16, 0);
    next.tokens = ids.data();
    auto step = std::move(rig.cache->plan({&next, 1})).value();
    std::vector<float> x = Rig::rows(0, static_cast<std::uint32_t>(name), 0, 16);
    RunArgs args;
    args.k.host = args.v.host = reinterpret_cast<std::byte*>(x.data());
    args.q_heads = 2;
    REQUIRE(rig.cache->run(*step, 0, args).ok());
    REQUIRE(rig.cache->commit(std::move(step)).ok());
    REQUIRE(rig.cache->destroy_sequence(id).ok());
  };
  for (std::int32_t name = 0; name < 8; ++name) begin(name);
  const std::uint64_t own = 2 * make_side(FormatId::t2, 32, 2, 16).page_bytes, copy = 2 * make_side(FormatId::f16, 32, 2, 16).page_bytes;
  REQUIRE(rig.cache->memory_use().used_bytes == 8 * (own + copy));
  begin(8);
  CHECK((rig.cache->memory_use().used_bytes - 9 * own) / copy == 8);
}

TEST_CASE("host protection: cut into a shared page, both sides append, one step aborted") {
  CacheModel model(narrow(16, 32), 8, 11);
  const SequenceId a = model.create();
  model.step({entry(a, 48, 2)});
  model.fork(a, 48);
  const SequenceId b = std::prev(model.sequences.end())->first;
  model.truncate(a, 40);
  model.truncate(b, 37);
  model.step({entry(a, 9, 9), entry(b, 3, 3)}, false);
  model.step({entry(a, 9, 9), entry(b, 3, 3)});
  model.step({entry(a, 1, 1), entry(b, 30, 30)});
  model.truncate(a, 0);
  model.destroy(b);
  CHECK(model.cache->memory_use().used_bytes == 0);
}

TEST_CASE("host protection: a step open while its sequences are forked and others end") {
  CacheModel model(narrow(16, 32), 8, 12);
  const SequenceId a = model.create();
  model.step({entry(a, 40, 2)});
  model.fork(a, 40);
  const SequenceId b = std::prev(model.sequences.end())->first;
  StepEntry next = entry(a, 3, 0);
  auto step = std::move(model.cache->plan({&next, 1})).value();
  const SequenceId c = model.cache->fork_sequence(a, 33).value();
  REQUIRE(model.cache->destroy_sequence(b).ok());
  model.sequences.erase(b);
  model.cache->abort(std::move(step));
  REQUIRE(model.cache->destroy_sequence(c).ok());
  model.step({entry(a, 3, 3)});
  model.destroy(a);
  CHECK(model.cache->memory_use().used_bytes == 0);
}

TEST_CASE("host protection: masses with copies, and both kinds of queries in a step") {
  CacheSpec spec = narrow(16, 32);
  spec.attention_mass = true;
  CacheModel model(spec, 4, 13);
  model.options.mass = true;
  const SequenceId a = model.create(), b = model.create();
  model.step({entry(a, 100, 100), entry(b, 1, 1)});
  model.step({entry(a, 1, 1), entry(b, 40, 40)});
  model.step({entry(a, 20, 20), entry(b, 1, 1)});
}

TEST_CASE("host protection: slabs destroyed and remade between steps leave no buffer behind") {
  Rig rig(narrow(16, 32), 4);
  const SequenceId id = rig.create();
  rig.step({{id, 0, 60, 1}});
  REQUIRE(rig.cache->convert(0, Side::v, FormatId::q4_0).ok());
  rig.step({{id, 0, 60, 1}});
  REQUIRE(rig.cache->set_memory_limit(256 << 10, {}).ok());
  rig.step({{id, 0, 10, 1}});
  REQUIRE(rig.cache->set_memory_limit(0, {}).ok());
  rig.step({{id, 0, 60, 1}});
  rig.cache.reset();
  CHECK(rig.executor.live_bytes() == 0);
}

}  // namespace
}  // namespace kvant
