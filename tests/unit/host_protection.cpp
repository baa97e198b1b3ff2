// Protected tokens: attention reads copies in f16 where docs/protection.md says that there are some, and quantized rows elsewhere; copies come
// and go with their tokens, and nothing fails for want of them.
#include <doctest/doctest.h>

#include <vector>

#include "host_cache_model.hpp"
#include "memory_planner.hpp"
#include "wide_pages.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;

CacheSpec protected_spec(std::uint32_t first, std::uint32_t newest) {
  CacheSpec spec;
  spec.capacity_tokens = 2048;
  spec.layers = {
      {2, 32, 32, FormatId::t2, FormatId::q4_0, 0, 0},
      {2, 32, 32, FormatId::f32, FormatId::t3, 0, 0},    // the same group: K is wider than f16 as it is
      {1, 40, 64, FormatId::nf4, FormatId::t2, 48, 16},  // window with sinks
      {1, 64, 32, FormatId::f16, FormatId::bf16, 0, 0},  // nothing to protect
  };
  spec.protection = {first, newest, true, true, 2048};
  return spec;
}

void random_action(CacheModel& model) {
  const std::uint32_t action = model.random.below(10);
  if (model.sequences.empty() || (action == 0 && model.sequences.size() < 5)) {
    model.create();
  } else if (action == 1 && model.sequences.size() < 5) {
    const SequenceId parent = model.pick();
    model.fork(parent, model.sequences[parent].length);
  } else if (action == 2) {
    const SequenceId id = model.pick();
    const std::uint64_t target = model.random.below(static_cast<std::uint32_t>(model.sequences[id].length) + 1);
    if (model.cache->truncate_sequence(id, target).ok()) model.truncate(id, target);
  } else if (action == 3 && model.sequences.size() > 1) {
    model.destroy(model.pick());
  } else {
    std::vector<StepEntry> entries;
    for (const auto& [id, tokens] : model.sequences) {
      if (!model.random.chance(60) || tokens.length > 150) continue;
      const std::uint32_t append = model.random.chance(50) ? 1 : model.random.below(40);
      entries.push_back(entry(id, append, model.random.chance(70) ? append : model.random.below(append + 2)));
    }
    model.options.lse = model.random.chance(40);
    model.step(entries, model.random.chance(85));
  }
}

TEST_CASE("host protection: random histories agree with a plain model") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    CAPTURE(seed);
    CacheModel model(protected_spec(seed % 3 == 0 ? 0 : 17, seed % 3 == 1 ? 0 : 40), seed % 2 == 0 ? 5 : 64, seed);
    AttendConfig config = model.executor.cpu.attend_config({});
    config.queries_per_item = 1 + static_cast<std::uint32_t>(seed);
    config.kv_split = config.kv_per_item = seed % 2 == 0 ? 0 : 32;
    if (config.kernel == KernelId::attend_decode) config.kernel = KernelId::attend_prefill, config.heads_per_tile = 1;
    model.executor.cpu.set_attend_config(config);
    for (int i = 0; i < 40; ++i) random_action(model);
    model.check_reads();
    while (!model.sequences.empty()) model.destroy(model.sequences.begin()->first);
    CHECK(model.cache->memory_use().used_bytes == 0);
  }
}

TEST_CASE("host protection: the first and the newest tokens, and no others, cost f16") {
  CacheSpec spec = protected_spec(16, 32);
  spec.layers.resize(1);
  spec.layers[0].format_v = FormatId::t2;
  CacheModel model(spec, 64, 1);
  const SequenceId id = model.create();
  const auto copies = [&] {
    const MemoryUse use = model.cache->memory_use();
    const std::uint64_t narrow = use.used_pages * 2 * make_side(FormatId::t2, 32, 2, 16).page_bytes;
    return (use.used_bytes - narrow) / (2 * make_side(FormatId::f16, 32, 2, 16).page_bytes);
  };
  model.step({entry(id, 160, 1)});  // ten pages, all of them fresh
  CHECK(copies() == 10);
  model.step({entry(id, 1, 1)});  // of 160 the first and pages 8 and 9, tokens 128 and behind; and the fresh one's
  CHECK(copies() == 4);
  for (int i = 0; i < 16; ++i) model.step({entry(id, 1, 1)});
  CHECK(copies() == 4);  // of 176 the first, pages 9 and 10; and the fresh one's
  model.truncate(id, 150);
  CHECK(copies() == 2);  // what is left of them: page 9
  model.step({entry(id, 0, 3)});
  model.step({entry(id, 20, 3)});
  CHECK(copies() == 3);
  // A long prompt: while its step is open, its last 512 tokens and 32 before them, and the first page.
  REQUIRE(model.cache->truncate_sequence(id, 0).ok());
  const StepEntry prompt = entry(id, 640, 1);
  auto step = model.cache->plan({&prompt, 1});
  REQUIRE(step.ok());
  CHECK(copies() == 1 + (640 - 96) / 16);
  model.cache->abort(std::move(step).value());
  CHECK(copies() == 0);
}

TEST_CASE("host protection: K alone, V alone") {
  for (const Side side : {Side::k, Side::v}) {
    CacheSpec spec = protected_spec(8, 16);
    spec.protection.k = side == Side::k;
    spec.protection.v = side == Side::v;
    CacheModel model(spec, 8, 11);
    const SequenceId id = model.create();
    for (const std::uint32_t append : {50u, 1u, 1u, 30u, 1u}) model.step({entry(id, append, append)});
  }
}

TEST_CASE("host protection: rows that came another way than by append are read as they were quantized") {
  CacheModel model(protected_spec(64, 64), 64, 2);
  const SequenceId id = model.create();
  model.step({entry(id, 40, 1)});
  const auto rewrite = [&](std::uint64_t begin, std::uint64_t count) {
    CacheModel::Tokens& tokens = model.sequences[id];
    for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer) {
      std::array<std::vector<float>, 2> rows;
      std::array<TensorView, 2> views;
      for (const Side side : {Side::k, Side::v}) {
        const auto s = static_cast<std::size_t>(side);
        const std::size_t row = std::size_t{model.spec.layers[layer].kv_heads} * model.dim(layer, side);
        rows[s].resize(count * row);
        for (float& x : rows[s]) x = model.random.normal();
        views[s].host = reinterpret_cast<std::byte*>(rows[s].data());
        std::vector<float> stored = rows[s];
        for (std::size_t at = 0; at < stored.size(); at += model.dim(layer, side))
          CacheModel::recode(model.format(layer, side), model.dim(layer, side), std::span(stored).subspan(at, model.dim(layer, side)));
        std::copy(stored.begin(), stored.end(), tokens.layers[layer][s].begin() + static_cast<std::ptrdiff_t>(begin * row));
      }
      const Status status = model.cache->write(id, layer, begin, count, views[0], views[1]);
      REQUIRE_MESSAGE(status.ok(), status.message());
    }
    model.drop_copies(id, begin / 16);
  };
  rewrite(20, 3);
  model.step({entry(id, 0, 5)});
  model.step({entry(id, 30, 30)});  // 70 tokens: pages that are wholly fresh have copies again
  rewrite(69, 1);
  model.step({entry(id, 9, 9)});

  // A protected side keeps them, for they do not follow its format.
  REQUIRE(model.cache->convert(0, Side::k, FormatId::q8_0).ok());
  CacheModel::Tokens& tokens = model.sequences[id];
  std::vector<float>& keys = tokens.layers[0][0];
  for (std::size_t at = 0; at < keys.size(); at += 32) CacheModel::recode(FormatId::q8_0, 32, std::span(keys).subspan(at, 32));
  model.step({entry(id, 0, 4)});
  model.step({entry(id, 20, 20)});
  model.check_reads();
  model.destroy(id);
  CHECK(model.cache->memory_use().used_bytes == 0);
}

TEST_CASE("host protection: tokens behind a gap lose their copies") {
  CacheSpec spec = protected_spec(16, 64);
  spec.layers.resize(1);
  CacheModel model(spec, 64, 3);
  const SequenceId id = model.create();
  model.step({entry(id, 90, 90)});
  std::vector<std::uint64_t> kept;
  for (std::uint64_t i = 0; i < 90; ++i)
    if (i != 41 && i != 42) kept.push_back(i);
  REQUIRE(model.cache->keep_tokens(id, kept).ok());
  CacheModel::Tokens& tokens = model.sequences[id];
  for (auto* all : {&tokens.layers, &tokens.wide})
    for (const Side side : {Side::k, Side::v}) {
      auto& rows = (*all)[0][static_cast<std::size_t>(side)];
      rows.erase(rows.begin() + 41 * 64, rows.begin() + 43 * 64);
    }
  tokens.length = 88;
  model.drop_copies(id, 2);
  model.step({entry(id, 0, 4)});
  model.step({entry(id, 30, 30)});
  model.check_reads();
}

TEST_CASE("host protection: imported rows have no copies") {
  CacheModel model(protected_spec(16, 32), 64, 4);
  const SequenceId parent = model.create();
  model.step({entry(parent, 24, 24)});
  const SequenceId child = model.cache->create_sequence().value();
  StepEntry all = entry(child, 24, 24);
  auto step = std::move(model.cache->plan({&all, 1})).value();
  for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer) {
    std::array<std::vector<std::byte>, 2> bytes;
    for (const Side side : {Side::k, Side::v}) {
      auto& out = bytes[static_cast<std::size_t>(side)];
      out.resize(24 * model.spec.layers[layer].kv_heads * canonical_row_bytes(format_info(model.format(layer, side)), model.dim(layer, side)));
      REQUIRE(model.cache->read_canonical(parent, layer, side, 0, 24, out).ok());
    }
    REQUIRE(model.cache->import_layer(*step, layer, bytes[0], bytes[1]).ok());
    // Queries of the same step see them as well: NaN of unwritten copies would show.
    const LayerSpec& facts = model.spec.layers[layer];
    std::vector<float> q(24 * facts.kv_heads * facts.head_dim_k, 0.5f), out(24 * facts.kv_heads * facts.head_dim_v);
    RunArgs args;
    args.q_heads = facts.kv_heads;
    args.q.host = reinterpret_cast<std::byte*>(q.data());
    args.out.host = reinterpret_cast<std::byte*>(out.data());
    const Status status = model.cache->run(*step, layer, args);
    REQUIRE_MESSAGE(status.ok(), status.message());
    for (const float x : out) REQUIRE(std::isfinite(x));
  }
  REQUIRE(model.cache->commit(std::move(step)).ok());
  model.sequences[child] = model.sequences[parent];
  model.drop_copies(child, 0);
  model.step({entry(child, 0, 3), entry(parent, 0, 3)});
  model.step({entry(child, 30, 30)});
}

TEST_CASE("host protection: without room or memory tokens are read as they were quantized") {
  CacheSpec spec = protected_spec(16, 32);
  spec.protection.capacity_tokens = 16;  // one page a layer group
  CacheModel model(spec, 64, 5);
  const SequenceId id = model.create();
  StepEntry first = entry(id, 64, 1);
  auto step = model.cache->plan({&first, 1});
  REQUIRE(step.ok());
  model.cache->abort(std::move(step).value());
  CHECK(model.cache->memory_use().used_bytes == 0);
  model.executor.fail_create = 4;  // the slabs of the four layers themselves come first
  step = model.cache->plan({&first, 1});
  REQUIRE(step.ok());
  model.cache->abort(std::move(step).value());
  CHECK(model.cache->memory_use().used_bytes == 0);
}

TEST_CASE("host protection: a memory limit has room for both") {
  CacheSpec spec = protected_spec(16, 32);
  CacheModel model(spec, 4, 6);
  const SequenceId id = model.create();
  model.step({entry(id, 100, 100)});
  const std::uint64_t limit = 512 << 10;
  REQUIRE(model.cache->set_memory_limit(limit, {}).ok());
  model.drop_copies(id, 0);
  model.step({entry(id, 0, 4)});
  CHECK(model.cache->memory_use().pool_bytes <= limit);
}

// One layer, one sequence's outputs at a query.
struct PrefixFixture {
  explicit PrefixFixture(std::uint64_t copies, std::uint32_t window = 0) {
    spec = protected_spec(16, 0);
    spec.layers = {{2, 32, 32, FormatId::t2, FormatId::t2, window, 0}};
    spec.prefix_cache = true;
    spec.protection.capacity_tokens = copies;
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = random.normal();
    cache = std::move(Cache::create(executor, spec, Log{})).value();
    for (std::int32_t i = 0; i < 40; ++i) tokens.push_back(i);
  }
  TensorView view(std::size_t token) {
    TensorView tensor;
    tensor.host = reinterpret_cast<std::byte*>(rows.data() + token * 64);
    return tensor;
  }
  // Appends what is missing of the 40 tokens and asks.
  std::vector<float> ask(SequenceId sequence, std::int32_t first_token) {
    const std::uint64_t there = cache->sequence_length(sequence).value();
    std::vector<std::int32_t> ids = tokens;
    ids[0] = first_token;
    StepEntry fresh = entry(sequence, static_cast<std::uint32_t>(40 - there), 1);
    fresh.tokens = ids.data() + there;
    auto step = std::move(cache->plan({&fresh, 1})).value();
    std::vector<float> out(64);
    RunArgs args;
    if (there < 40) args.k = args.v = view(there);
    args.q = view(7);
    args.out.host = reinterpret_cast<std::byte*>(out.data());
    args.q_heads = 2;
    REQUIRE(cache->run(*step, 0, args).ok());
    REQUIRE(cache->commit(std::move(step)).ok());
    return out;
  }
  SequenceStart open(std::int32_t first_token) {
    std::vector<std::int32_t> ids = tokens;
    ids[0] = first_token;
    SequenceSpec asked;
    asked.tokens = ids;
    return cache->create_sequence(asked).value();
  }
  test::TestExecutor executor;
  test::Random random{9};
  CacheSpec spec;
  std::vector<float> rows = std::vector<float>(40 * 64);
  std::unique_ptr<Cache> cache;
  std::vector<std::int32_t> tokens;
};

TEST_CASE("host protection: the first tokens of a shared prefix are protected wherever it is shared") {
  PrefixFixture f(1024);
  const SequenceStart a = f.open(0);
  const std::vector<float> expected = f.ask(a.sequence, 0);
  const std::uint64_t copy = f.cache->memory_use().used_bytes - 3 * 2 * make_side(FormatId::t2, 32, 2, 16).page_bytes;
  CHECK(copy == 2 * make_side(FormatId::f16, 32, 2, 16).page_bytes);
  const SequenceStart b = f.open(0);
  CHECK(b.reused_tokens == 32);
  CHECK(f.ask(b.sequence, 0) == expected);
  REQUIRE(f.cache->destroy_sequence(a.sequence).ok());
  REQUIRE(f.cache->destroy_sequence(b.sequence).ok());
  const SequenceStart c = f.open(0);
  CHECK(f.ask(c.sequence, 0) == expected);
  // A part of the first page: it is written, so that its copy stays the others'.
  SequenceSpec part;
  part.tokens = std::span(f.tokens).first(16);
  part.leave_tokens = 6;
  const SequenceStart d = f.cache->create_sequence(part).value();
  REQUIRE(d.reused_tokens == 10);
  CHECK(f.ask(d.sequence, 0) != expected);
  CHECK(f.ask(f.open(0).sequence, 0) == expected);
  REQUIRE(f.cache->set_memory_limit(80 << 10, {}).ok());  // has no room for any
  CHECK(f.ask(f.open(0).sequence, 0) != expected);
  for (const SequenceId id : f.cache->sequences()) REQUIRE(f.cache->destroy_sequence(id).ok());
  REQUIRE(f.cache->clear_prefixes().ok());
  CHECK(f.cache->memory_use().used_bytes == 0);
}

TEST_CASE("host protection: a prefix in use keeps its copies when there is no room for others") {
  PrefixFixture f(16);
  const SequenceStart a = f.open(0);
  const std::vector<float> expected = f.ask(a.sequence, 0);
  const SequenceStart other = f.open(100);
  CHECK(f.ask(other.sequence, 100) != expected);
  CHECK(f.ask(f.open(0).sequence, 0) == expected);
}

TEST_CASE("host protection: a shared prefix brings no copy of what a window has passed") {
  PrefixFixture f(1024, 8);
  const SequenceStart a = f.open(0);
  f.ask(a.sequence, 0);
  const SequenceStart b = f.open(0);
  REQUIRE(b.reused_tokens == 32);
  StepEntry entry = test::entry(b.sequence, 8, 1);
  entry.explicit_positions = true;
  entry.q_pos_begin = 5;  // it would see the first page alone
  auto step = std::move(f.cache->plan({&entry, 1})).value();
  std::vector<float> out(64, 1.0f);
  RunArgs args;
  args.k = args.v = f.view(32);
  args.q = f.view(7);
  args.out.host = reinterpret_cast<std::byte*>(out.data());
  args.q_heads = 2;
  REQUIRE(f.cache->run(*step, 0, args).ok());
  CHECK(out == std::vector<float>(64, 0.0f));
}

TEST_CASE("host protection: prefixes that nobody uses make room for others' copies") {
  PrefixFixture f(16);
  const SequenceStart a = f.open(0);
  const std::vector<float> expected = f.ask(a.sequence, 0);
  REQUIRE(f.cache->destroy_sequence(a.sequence).ok());
  const SequenceStart other = f.open(100);
  CHECK(f.ask(other.sequence, 100) == expected);  // the same rows under another name
  CHECK(f.ask(f.open(0).sequence, 0) != expected);
}

TEST_CASE("host protection: what it cannot be") {
  CacheSpec spec = protected_spec(16, 32);
  test::TestExecutor executor;
  spec.external_pages = true;
  spec.layers.resize(1);
  const auto external = Cache::create(executor, spec, Log{});
  REQUIRE(!external.ok());
  CHECK(external.status().code() == StatusCode::invalid_argument);
}

}  // namespace
}  // namespace kvant
