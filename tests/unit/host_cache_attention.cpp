// The cache end to end on the CPU executor, against a plain model: random histories of appends, forks, truncations,
// aborted steps, in several layer groups, with slabs of a few pages, scattered pages and poisoned memory.
#include <doctest/doctest.h>

#include <vector>

#include "host_cache_model.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;

CacheSpec mixed_spec(std::uint64_t tokens) {
  CacheSpec spec;
  spec.capacity_tokens = tokens;
  spec.layers = {
      {2, 32, 32, FormatId::f32, FormatId::f16, 0, 0},
      {1, 40, 64, FormatId::q8_0, FormatId::nf4, 24, 0},    // window
      {2, 32, 32, FormatId::q5_1, FormatId::nf4_dq, 0, 0},  // the first one's group
      {1, 40, 64, FormatId::bf16, FormatId::q4_0, 20, 3},   // window with sinks
  };
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
    const std::uint64_t length = model.sequences[id].length;
    // A window may have let go of what an earlier end would need; then nothing changes.
    const std::uint64_t target = model.random.below(static_cast<std::uint32_t>(length) + 1);
    const std::uint64_t pages = model.cache->memory_use().used_pages;
    if (const Status status = model.cache->truncate_sequence(id, target); status.ok()) {
      model.truncate(id, target);
    } else {
      CHECK(status.code() == StatusCode::failed_precondition);
      CHECK(model.cache->memory_use().used_pages == pages);
    }
  } else if (action == 3 && model.sequences.size() > 1) {
    model.destroy(model.pick());
  } else {
    std::vector<StepEntry> entries;
    for (const auto& [id, tokens] : model.sequences) {
      if (!model.random.chance(60) || tokens.length > 120) continue;
      const std::uint32_t append = model.random.chance(50) ? 1 : model.random.below(30);
      entries.push_back(entry(id, append, model.random.chance(70) ? append : model.random.below(append + 2)));
    }
    model.options.causal = model.random.chance(80);
    model.options.soft_cap = model.random.chance(30) ? 2.0f : 0.0f;
    model.options.sinks = model.random.chance(30);
    model.options.slopes = model.random.chance(30);
    model.options.lse = model.random.chance(40);
    model.options.group = model.random.between(1, 3);
    const std::uint64_t pages = model.cache->memory_use().used_pages;
    const bool commit = model.random.chance(85);
    model.step(entries, commit);
    if (!commit) CHECK(model.cache->memory_use().used_pages == pages);
  }
}

TEST_CASE("host cache: random histories agree with a plain model") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    CAPTURE(seed);
    const std::uint32_t pages_per_slab = seed % 2 == 0 ? 5 : 64;
    CacheModel model(mixed_spec(1024), pages_per_slab, seed);
    if (seed % 4 >= 2) cache_debug(*model.cache).shuffle_free_pages(seed, true);
    AttendConfig config = model.executor.cpu.attend_config({});
    config.kernel = KernelId::attend_prefill;
    config.heads_per_tile = 1;
    config.queries_per_item = 1 + static_cast<std::uint32_t>(seed);
    config.kv_split = config.kv_per_item = 16 * (1 + static_cast<std::uint32_t>(seed) % 3);
    model.executor.cpu.set_attend_config(config);
    if (seed >= 4)
      cache_debug(*model.cache).set_attend_override([](const AttendShape& shape, AttendConfig chosen) {
        chosen.queries_per_item = shape.max_queries <= 2 ? 1 : 5;
        return chosen;
      });
    for (int i = 0; i < 40; ++i) random_action(model);
    model.check_reads();
    while (!model.sequences.empty()) model.destroy(model.sequences.begin()->first);
    CHECK(model.cache->memory_use().used_pages == 0);
    CHECK(model.cache->memory_use().sequence_tokens == 0);
  }
}

TEST_CASE("host cache: what forks share is attended once, where no rule asks for the place of a key") {
  CacheModel model(mixed_spec(2048), 64, 21);
  cache_debug(*model.cache).set_attend_override([](const AttendShape& shape, AttendConfig config) {
    config.kernel = shape.max_queries > 1 ? KernelId::attend_prefill : KernelId::attend_decode;
    config.queries_per_item = shape.max_queries > 1 ? 8 : 1;
    config.kv_split = config.kv_per_item = 32;
    return config;
  });
  const SequenceId a = model.create();
  model.step({entry(a, 127, 0)});
  model.fork(a, 127);
  const SequenceId e = model.sequences.rbegin()->first;
  model.step({entry(a, 23, 0)});
  model.fork(a, 150);
  const SequenceId b = model.sequences.rbegin()->first;
  model.fork(b, 149);
  const SequenceId c = model.sequences.rbegin()->first;
  const auto shared_dispatches = [&](std::vector<StepEntry> entries) {
    model.executor.lists.clear();
    model.step(entries);
    return model.executor.count(KernelId::attend_prefill);
  };
  const std::vector<StepEntry> all{entry(a, 1, 1), entry(b, 1, 1), entry(c, 1, 1)};
  CHECK(shared_dispatches(all) == 2);                               // the two layers without a window
  CHECK(shared_dispatches({entry(a, 1, 1)}) == 0);
  CHECK(shared_dispatches({entry(a, 1, 1), entry(b, 0, 0), entry(c, 1, 1)}) == 2);  // b asks nothing, and is not between them
  model.options.slopes = true;
  CHECK(shared_dispatches(all) == 0);
  model.options.slopes = false;
  model.options.lse = model.options.sinks = true;
  model.options.soft_cap = 2.0f;
  model.options.group = 3;
  CHECK(shared_dispatches(all) == 2);
  const SequenceId d = model.create();
  CHECK(shared_dispatches({entry(a, 1, 1), entry(d, 300, 1), entry(b, 1, 1)}) == 0);  // not neighbours
  CHECK(shared_dispatches({entry(d, 1, 1), entry(a, 1, 1), entry(b, 1, 1)}) == 2);
  model.step({entry(d, 650, 1)});
  CHECK(shared_dispatches({entry(d, 1, 1), entry(a, 1, 1), entry(b, 1, 1)}) == 0);  // 144 keys are too few beside 952
  CHECK(shared_dispatches({entry(e, 1, 1), entry(a, 1, 1)}) == 0);  // and 112 too few for items of their own
  model.check_reads();
}

TEST_CASE("host cache: prompts and single tokens in one step, each with its kernel") {
  CacheModel model(mixed_spec(512), 64, 3);
  const SequenceId a = model.create(), b = model.create();
  model.step({entry(a, 30, 30)});
  model.executor.lists.clear();
  model.step({entry(a, 1, 1), entry(b, 40, 40)});
  CHECK(model.executor.count(KernelId::attend_decode) == 4);
  CHECK(model.executor.count(KernelId::attend_prefill) >= 4);
}

TEST_CASE("host cache: tree masks and explicit positions") {
  CacheModel model(mixed_spec(512), 8, 5);
  const SequenceId a = model.create(), b = model.create();
  model.step({entry(a, 37, 1), entry(b, 20, 0)});
  // Seven drafts as a tree behind 37 tokens: each sees its parents only.
  const std::vector<std::uint32_t> mask{0x01, 0x03, 0x05, 0x0B, 0x13, 0x25, 0x45};
  StepEntry tree = entry(a, 7, 7);
  tree.mask = mask.data();
  tree.mask_row_words = 1;
  tree.mask_kv_begin = 37;
  StepEntry placed = entry(b, 0, 3);
  placed.explicit_positions = true;
  placed.q_pos_begin = 11;
  model.step({tree, placed});
  model.truncate(a, 38);
  model.step({entry(a, 2, 2)});
  model.check_reads();
}

TEST_CASE("host cache: cross-attention is a step that only asks, without the causal rule") {
  CacheModel model(mixed_spec(512), 8, 7);
  const SequenceId a = model.create();
  model.step({entry(a, 19, 0)});
  model.options.causal = false;
  model.step({entry(a, 0, 33)});
  CHECK(model.cache->sequence_length(a).value() == 19);
}

TEST_CASE("host cache: a sequence slides on in a pool smaller than its history") {
  CacheSpec spec;
  spec.layers = {{1, 32, 32, FormatId::f16, FormatId::f16, 20, 2}};
  spec.capacity_tokens = 16 * 6;
  CacheModel model(spec, 4, 9);
  const SequenceId a = model.create();
  for (int i = 0; i < 40; ++i) model.step({entry(a, 7, 7)});
  CHECK(model.cache->sequence_length(a).value() == 280);
  const auto pages = cache_debug(*model.cache).sequence_pages(a, 0).value();
  REQUIRE(pages.size() == 18);
  CHECK(pages[0] >= 0);  // the sinks' page
  CHECK(pages[1] == -1);
  CHECK(model.cache->memory_use().used_pages <= 5);
  // The last step can be taken back, the one before cannot.
  model.truncate(a, 273);
  CHECK(model.cache->truncate_sequence(a, 100).code() == StatusCode::failed_precondition);
  CHECK(model.cache->fork_sequence(a, 100).status().code() == StatusCode::failed_precondition);
  model.step({entry(a, 1, 1)});
  model.truncate(a, 0);
  CHECK(model.cache->memory_use().used_pages == 0);
  model.step({entry(a, 20, 20)});
}

}  // namespace
}  // namespace kvant
