// Attention mass: what the cache adds up is what a plain attention gives, wherever pages lie, and it stays with its tokens.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "host_cache_model.hpp"
#include "memory_planner.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;

CacheSpec mass_spec(std::uint64_t tokens) {
  CacheSpec spec;
  spec.capacity_tokens = tokens;
  spec.attention_mass = true;
  spec.layers = {
      {2, 32, 32, FormatId::f32, FormatId::f16, 0, 0},
      {1, 40, 64, FormatId::q8_0, FormatId::nf4, 24, 0},
      {2, 32, 32, FormatId::q5_1, FormatId::nf4_dq, 0, 0},
      {1, 40, 64, FormatId::bf16, FormatId::q4_0, 20, 3},
  };
  return spec;
}

std::vector<float> masses(Cache& cache, SequenceId id, std::optional<std::uint32_t> layer = {},
                          std::optional<std::uint32_t> head = {}) {
  std::vector<float> out(cache.sequence_length(id).value());
  const Status status = cache.attention_mass(id, layer, head, 0, out);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return out;
}

TEST_CASE("host mass: random histories agree with a plain model") {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    CAPTURE(seed);
    CacheModel model(mass_spec(2048), seed % 2 == 0 ? 5 : 64, seed);
    if (seed % 3 == 1) cache_debug(*model.cache).shuffle_free_pages(seed, true);
    model.options.group = 1 + static_cast<std::uint32_t>(seed % 3);
    for (int i = 0; i < 3; ++i) model.create();
    for (int action = 0; action < 12; ++action) {
      std::vector<StepEntry> entries;
      for (const auto& [id, tokens] : model.sequences) {
        if (!model.random.chance(70)) continue;
        const std::uint32_t append = model.random.chance(50) ? 1 : model.random.below(30);
        entries.push_back(entry(id, append, model.random.chance(70) ? append : model.random.below(append + 2)));
      }
      model.options.causal = model.random.chance(80);
      model.options.soft_cap = model.random.chance(30) ? 2.0f : 0.0f;
      model.options.sinks = model.random.chance(30);
      model.options.slopes = model.random.chance(30);
      model.options.lse = model.random.chance(40);
      model.options.mass = model.random.chance(70);
      model.step(entries);
      // What takes the place of tokens that were taken back begins at nothing.
      const SequenceId first = model.sequences.begin()->first;
      const std::uint64_t length = model.sequences[first].length;
      if (length > 3 && model.random.chance(40) && model.cache->truncate_sequence(first, length - 3).ok())
        model.truncate(first, length - 3);
    }
    model.check_masses();
  }
}

TEST_CASE("host mass: every query gives each layer and head one in all, as means over what is not named") {
  CacheModel model(mass_spec(256), 4, 1);
  model.options.mass = true;
  const SequenceId id = model.create();
  model.step({entry(id, 20, 20)});
  model.step({entry(id, 1, 1)});
  for (const auto& mass : {masses(*model.cache, id), masses(*model.cache, id, 0), masses(*model.cache, id, 0, 1)})
    CHECK(std::accumulate(mass.begin(), mass.end(), 0.0) == doctest::Approx(21.0).epsilon(1e-5));
  const auto both = masses(*model.cache, id, 2);
  const auto one = masses(*model.cache, id, 2, 0), other = masses(*model.cache, id, 2, 1);
  for (std::size_t t = 0; t < both.size(); ++t) CHECK(both[t] == doctest::Approx((one[t] + other[t]) / 2));
  REQUIRE(model.cache->clear_mass(id).ok());
  for (const float mass : masses(*model.cache, id)) CHECK(mass == 0.0f);
}

TEST_CASE("host mass: it goes with the pages, into forks, gaps and fewer slabs") {
  CacheModel model(mass_spec(512), 4, 2);
  model.options.mass = true;
  const SequenceId first = model.create(), id = model.create();
  model.step({entry(first, 70, 0), entry(id, 23, 23)});
  const std::vector<float> before = masses(*model.cache, id, 0);
  const auto fork = model.cache->fork_sequence(id, 20);
  REQUIRE(fork.ok());
  CHECK(masses(*model.cache, fork.value(), 0) == std::vector<float>(before.begin(), before.begin() + 20));
  std::vector<std::uint64_t> kept;
  for (std::uint64_t token = 0; token < 23; ++token)
    if (token % 3 != 1) kept.push_back(token);
  REQUIRE(model.cache->keep_tokens(id, kept).ok());
  std::vector<float> expected;
  for (const std::uint64_t token : kept) expected.push_back(before[token]);
  CHECK(masses(*model.cache, id, 0) == expected);
  model.destroy(first);  // its slabs are the first ones: pages move into them
  REQUIRE(model.cache->set_memory_limit(model.cache->memory_use().pool_bytes * 2 / 3, {}).ok());
  CHECK(masses(*model.cache, id, 0) == expected);
  CHECK(masses(*model.cache, fork.value(), 0) == std::vector<float>(before.begin(), before.begin() + 20));
}

TEST_CASE("host mass: tokens that come as bytes have none") {
  CacheModel model(mass_spec(256), 4, 3);
  model.options.mass = true;
  const SequenceId id = model.create();
  model.step({entry(id, 40, 40)});
  std::vector<std::byte> saved;
  StateSelection all;
  all.all_sequences = true;
  REQUIRE(model.cache->save_state(all, [&](std::span<const std::byte> bytes) -> Status {
    saved.insert(saved.end(), bytes.begin(), bytes.end());
    return {};
  }).ok());
  REQUIRE(model.cache->destroy_sequence(id).ok());
  std::size_t at = 0;
  const auto loaded = model.cache->load_state([&](std::span<std::byte> out) -> Result<std::size_t> {
    const std::size_t count = std::min(out.size(), saved.size() - at);
    std::copy_n(saved.begin() + static_cast<std::ptrdiff_t>(at), count, out.begin());
    at += count;
    return count;
  });
  REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
  for (const float mass : masses(*model.cache, loaded.value()[0].sequence)) CHECK(mass == 0.0f);
}

TEST_CASE("host mass: refusals name what is wrong") {
  CacheSpec without = mass_spec(64);
  without.attention_mass = false;
  CacheModel plain(without, 4, 1);
  const SequenceId id = plain.create();
  plain.step({entry(id, 5, 5)});
  std::vector<float> out(5);
  CHECK(plain.cache->attention_mass(id, {}, {}, 0, out).code() == StatusCode::failed_precondition);
  CHECK(plain.cache->prune_sequence(id, {}).status().code() == StatusCode::failed_precondition);
  CHECK(plain.cache->clear_mass(id).code() == StatusCode::failed_precondition);

  CacheModel model(mass_spec(64), 4, 1);
  const SequenceId counted = model.create();
  model.step({entry(counted, 5, 5)});
  const auto refused = [](const Status& status, const char* part) {
    CHECK(status.code() == StatusCode::invalid_argument);
    CHECK_MESSAGE(status.message().find(part) != std::string::npos, status.message());
  };
  refused(model.cache->attention_mass(counted, {}, {}, 1, out), "tokens 1 + 5");
  refused(model.cache->attention_mass(counted, {}, {}, UINT64_MAX, out), "tokens 18446744073709551615 + 5");
  refused(model.cache->attention_mass(counted, 0, 2, 0, out), "kv_head (2)");
  refused(model.cache->attention_mass(counted, 9, 0, 0, out), "9");
  refused(model.cache->prune_sequence(counted, {.keep = 20, .sinks = 4, .recent = 10}).status(), "keep_tokens (20)");  // the window's 24
}

}  // namespace
}  // namespace kvant
