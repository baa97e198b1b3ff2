// Thousands of random operations on a cache with a prefix cache, each compared with the plain model; references are counted after
// every one.
#include <doctest/doctest.h>

#include <iterator>

#include "host_prefix_model.hpp"
#include "memory_planner.hpp"

namespace kvant {
namespace {

using test::PrefixModel;
using test::Random;
using test::Tokens;

// Few distinct tokens in whole-page runs, so that prefixes meet often.
Tokens random_prompt(Random& random, std::size_t most) {
  Tokens tokens(random.below(static_cast<std::uint32_t>(most)) + 1);
  std::int32_t value = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i % 16 == 0) value = static_cast<std::int32_t>(random.below(3));
    tokens[i] = value;
  }
  return tokens;
}

SequenceId pick(PrefixModel& model, Random& random) {
  auto place = model.sequences.begin();
  std::advance(place, random.below(static_cast<std::uint32_t>(model.sequences.size())));
  return place->first;
}

// Values are exact in f16, so that cooling f32 changes none; and limits that come and go.
void press(PrefixModel& model, Random& random) {
  const std::uint64_t bytes = model.cache->memory_use().pool_bytes;
  if (random.below(3) != 0) {
    CoolSpec spec;
    spec.target_bytes = bytes * (60 + random.below(41)) / 100;
    spec.formats = {FormatId::f16};
    spec.sinks = random.below(20);
    spec.recent = random.below(20);
    const auto report = model.cache->cool(spec);
    REQUIRE_MESSAGE((report.ok() || report.status().code() == StatusCode::resource_exhausted), report.status().message());
    if (report.ok()) REQUIRE(model.cache->memory_use().pool_bytes <= spec.target_bytes);
    return;
  }
  const std::uint64_t limit = random.below(2) == 0 ? 0 : bytes * (70 + random.below(60)) / 100;
  MemoryOptions options;
  options.ladder = {};
  const Status status = model.cache->set_memory_limit(limit, options);
  REQUIRE_MESSAGE((status.ok() || status.code() == StatusCode::resource_exhausted), status.message());
  if (status.ok() && limit != 0) REQUIRE(model.cache->memory_use().pool_bytes <= limit);
}

void operate(PrefixModel& model, Random& random) {
  if (model.spec.attention_mass && random.below(5) == 0) return press(model, random);
  const std::uint32_t kind = model.sequences.empty() ? 0 : random.below(100);
  const char* const salts[] = {"", "a"};
  if (kind < 25 && model.sequences.size() < 6) {
    const Tokens prompt = random_prompt(random, 80);
    const SequenceStart start = model.create(prompt, salts[random.below(2)], random.below(2));
    const Tokens rest(prompt.begin() + static_cast<std::ptrdiff_t>(start.reused_tokens), prompt.end());
    if (!rest.empty()) {
      const Status status = model.append(start.sequence, rest, random.below(2) == 0);
      REQUIRE((status.ok() || status.code() == StatusCode::resource_exhausted));
      if (!status.ok()) model.destroy(start.sequence);  // it has been told of these tokens, and would take others for them
    }
  } else if (kind < 55) {
    const Status status =
        model.append(pick(model, random), random_prompt(random, 40), random.below(8) != 0, random.below(5) != 0);
    REQUIRE_MESSAGE((status.ok() || status.code() == StatusCode::resource_exhausted), status.message());
  } else if (kind < 65) {
    const SequenceId parent = pick(model, random);
    const std::uint64_t length = model.sequences[parent].tokens.size();
    const auto id = model.cache->fork_sequence(parent, random.below(static_cast<std::uint32_t>(length) + 1));
    if (!id.ok()) {
      REQUIRE((id.status().code() == StatusCode::resource_exhausted ||
               id.status().code() == StatusCode::failed_precondition));
      return;
    }
    model.sequences[id.value()] = model.sequences[parent];
    model.sequences[id.value()].tokens.resize(model.cache->sequence_length(id.value()).value());
  } else if (kind < 75) {
    const SequenceId id = pick(model, random);
    const std::uint64_t tokens = random.below(static_cast<std::uint32_t>(model.sequences[id].tokens.size()) + 1);
    const Status status = model.cache->truncate_sequence(id, tokens);
    REQUIRE((status.ok() || status.code() == StatusCode::failed_precondition));
    if (status.ok()) model.sequences[id].tokens.resize(tokens);
  } else if (kind < 90) {
    model.destroy(pick(model, random));
  } else if (kind < 93) {
    REQUIRE(model.cache->clear_prefixes().ok());
  } else if (kind < 96) {
    PolicySpec policy;
    policy.kind = static_cast<PolicyKind>(random.below(4));
    policy.ttl_ms = random.below(3) * 50;
    REQUIRE(model.cache->set_policy(policy).ok());
  } else {
    model.now_ms += random.below(60);
  }
}

void run(const CacheSpec& spec, std::uint64_t seed, int operations) {
  CAPTURE(seed);
  PrefixModel model(spec);
  Random random(seed);
  cache_debug(*model.cache).shuffle_free_pages(seed, true);
  for (int i = 0; i < operations; ++i) {
    CAPTURE(i);
    operate(model, random);
    model.check_references();
    if (i % 8 == 0) model.check_all();
  }
  model.check_all();
  while (!model.sequences.empty()) model.destroy(model.sequences.begin()->first);
  REQUIRE(model.cache->clear_prefixes().ok());
  CHECK(model.used_pages() == 0);
}

TEST_CASE("host prefix: random operations agree with a plain model") {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) run(PrefixModel::small(24), seed, 250);
}

TEST_CASE("host prefix: random operations agree with a plain model while pages cool") {
  CacheSpec spec = PrefixModel::small(24);
  spec.attention_mass = true;
  for (LayerSpec& layer : spec.layers) layer.format_v = FormatId::f32;
  for (std::uint64_t seed = 201; seed <= 216; ++seed) {
    if (seed > 210) spec.layers[1].window = 24;
    run(spec, seed, 250);
  }
}

TEST_CASE("host prefix: random operations with a sliding window agree with a plain model") {
  CacheSpec spec = PrefixModel::small(20);
  spec.layers[1].window = 24;
  spec.layers[1].window_sinks = 3;
  for (std::uint64_t seed = 101; seed <= 108; ++seed) run(spec, seed, 250);
}

}  // namespace
}  // namespace kvant
