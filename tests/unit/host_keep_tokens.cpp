// Dropping tokens from the middle of sequences: what stays is what was there, wherever pages lie; what fails changes nothing.
#include <doctest/doctest.h>

#include <numeric>

#include "host_prefix_model.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Random;
using Values = std::vector<float>;

Values read(Cache& cache, SequenceId id, std::uint32_t layer, Side side) {
  const LayerSpec& facts = cache.spec().layers[layer];
  const std::uint64_t length = cache.sequence_length(id).value();
  Values out(length * facts.kv_heads * (side == Side::k ? facts.head_dim_k : facts.head_dim_v));
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(out.data());
  REQUIRE(cache.read(id, layer, side, 0, length, view).ok());
  return out;
}

using Content = std::vector<Values>;  // of each layer and side

Content content(Cache& cache, SequenceId id) {
  Content all;
  for (std::uint32_t layer = 0; layer < cache.spec().layers.size(); ++layer)
    for (const Side side : {Side::k, Side::v}) all.push_back(read(cache, id, layer, side));
  return all;
}

Content without(const Content& before, std::uint64_t length, const std::vector<std::uint64_t>& kept) {
  Content after;
  for (const Values& rows : before) {
    const std::size_t row = rows.size() / length;
    Values& out = after.emplace_back();
    for (const std::uint64_t token : kept)
      out.insert(out.end(), rows.begin() + static_cast<std::ptrdiff_t>(token * row),
                 rows.begin() + static_cast<std::ptrdiff_t>((token + 1) * row));
  }
  return after;
}

// Formats whose rows of scales are odd numbers of bytes too.
CacheSpec odd_spec() {
  CacheSpec spec = PrefixModel::small(60);
  spec.layers = {{3, 40, 32, FormatId::nf4_dq, FormatId::q5_0, 0, 0}, {1, 72, 136, FormatId::q8_0, FormatId::nf4, 0, 0}};
  return spec;
}

TEST_CASE("host keep: what stays is what was there, code by code") {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    PrefixModel model(odd_spec(), random.between(1, 5));
    cache_debug(*model.cache).shuffle_free_pages(seed, true);
    const std::uint32_t length = random.between(1, 120);
    const SequenceId a = model.prompt(counting(0, length)).sequence;
    const SequenceId b = model.fork(a, length);
    const Content before = content(*model.cache, a);
    std::vector<std::uint64_t> kept;
    const std::uint32_t chance = random.between(5, 99);
    for (std::uint64_t token = 0; token < length; ++token)
      if (random.chance(chance)) kept.push_back(token);
    const Status status = model.cache->keep_tokens(a, kept);
    REQUIRE_MESSAGE(status.ok(), status.message());
    CHECK(model.cache->sequence_length(a).value() == kept.size());
    CHECK(content(*model.cache, a) == without(before, length, kept));
    CHECK(content(*model.cache, b) == before);
    model.sequences[a].tokens.resize(kept.size());
    model.check_references();
    // It goes on, and is shared only as far as it is what its ids say.
    REQUIRE(model.append(a, counting(5000, 20)).ok());
    model.check_references();
    std::uint64_t same = 0;
    while (same < kept.size() && kept[same] == same) ++same;
    SequenceSpec spec;
    const auto prompt = counting(0, length);
    spec.tokens = prompt;
    CHECK(model.cache->find_prefix(spec).value() == length / 16 * 16);
  }
}

TEST_CASE("host keep: everything, nothing, and a beginning are what truncate makes of them") {
  PrefixModel model(PrefixModel::small(16));
  const SequenceId a = model.prompt(counting(0, 40)).sequence;
  std::vector<std::uint64_t> all(40);
  std::iota(all.begin(), all.end(), 0u);
  REQUIRE(model.cache->keep_tokens(a, all).ok());
  model.check_all();
  REQUIRE(model.cache->keep_tokens(a, std::span(all).first(20)).ok());
  model.sequences[a].tokens.resize(20);
  model.check_all();
  REQUIRE(model.cache->keep_tokens(a, {}).ok());
  CHECK(model.cache->sequence_length(a).value() == 0);
}

TEST_CASE("host keep: refusals and failures change nothing") {
  CacheSpec spec = PrefixModel::small(12);
  spec.layers[1].window = 20;
  PrefixModel model(spec);
  const SequenceId a = model.create({}).sequence;
  for (int i = 0; i < 6; ++i) REQUIRE(model.append(a, counting(i * 16, 16), false).ok());
  const auto refused = [&](std::vector<std::uint64_t> kept, StatusCode code, const char* part) {
    const Status status = model.cache->keep_tokens(a, kept);
    CHECK(status.code() == code);
    CHECK_MESSAGE(status.message().find(part) != std::string::npos, status.message());
    model.check_all();
    model.check_references();
  };
  refused({80, 79}, StatusCode::invalid_argument, "kept[1] (79)");
  refused({80, 96}, StatusCode::invalid_argument, "kept[1] (96)");
  refused({5, 90}, StatusCode::failed_precondition, "token 5");
  // The tokens that stay in their places are not there for the second layer, whose window would reach them again.
  std::vector<std::uint64_t> most(48);
  std::iota(most.begin(), most.end(), 0u);
  most.push_back(95);
  refused(most, StatusCode::failed_precondition, "has left the window of 20");
  const SequenceId other = model.create({}).sequence;
  REQUIRE(model.append(other, counting(900, 48), false).ok());
  // All but three pages of the first group are held.
  std::vector<std::uint64_t> kept;
  for (std::uint64_t token = 81; token < 96; ++token) kept.push_back(token);
  for (int* countdown : {&model.executor.fail_stage, &model.executor.fail_submit})
    for (int n = 0; n < 2; ++n) {
      *countdown = n;
      CHECK_FALSE(model.cache->keep_tokens(a, kept).ok());
      *countdown = -1;
      model.check_all();
      model.check_references();
    }
  StepEntry entry;
  entry.sequence = other;
  entry.queries = 1;
  auto step = model.cache->plan({&entry, 1});
  refused(kept, StatusCode::failed_precondition, "a step is open");
}

}  // namespace
}  // namespace kvant
