// Keys moved to other positions: what comes out is what RoPE at those positions would have stored, and values stay.
#include <doctest/doctest.h>

#include <cmath>

#include "host_prefix_model.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;

std::vector<float> read(Cache& cache, SequenceId id, std::uint32_t layer, Side side) {
  const LayerSpec& facts = cache.spec().layers[layer];
  const std::uint64_t length = cache.sequence_length(id).value();
  std::vector<float> out(length * facts.kv_heads * (side == Side::k ? facts.head_dim_k : facts.head_dim_v));
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(out.data());
  REQUIRE(cache.read(id, layer, side, 0, length, view).ok());
  return out;
}

Rotation rope(std::size_t pairs, bool halves) {
  Rotation rotation;
  for (std::size_t i = 0; i < pairs; ++i)
    rotation.frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(pairs)));
  rotation.halves = halves;
  return rotation;
}

std::vector<float> turned(std::vector<float> keys, std::uint32_t heads, std::uint32_t dim, std::uint64_t begin, std::uint64_t end,
                          const Rotation& rotation, double positions) {
  const std::size_t pairs = rotation.frequencies.size();
  for (std::uint64_t row = begin * heads; row < end * heads; ++row)
    for (std::size_t i = 0; i < pairs; ++i) {
      float& a = keys[row * dim + (rotation.halves ? i : 2 * i)];
      float& b = keys[row * dim + (rotation.halves ? i + pairs : 2 * i + 1)];
      const double angle = rotation.frequencies[i] * positions, x = static_cast<double>(a), y = static_cast<double>(b);
      a = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
      b = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
    }
  return keys;
}

TEST_CASE("host shift: keys turn by the positions asked, values and other sequences stay") {
  for (const bool halves : {false, true}) {
    for (const std::int64_t positions : {-17, 300}) {
      CacheSpec spec = PrefixModel::small(24);
      spec.layers = {{2, 40, 32, FormatId::f32, FormatId::q4_0, 0, 0}, {1, 64, 64, FormatId::f32, FormatId::f16, 0, 0}};
      PrefixModel model(spec);
      const SequenceId a = model.prompt(counting(0, 70)).sequence;
      const SequenceId b = model.fork(a, 70);
      const Rotation rotation = rope(16, halves);
      const std::vector<float> keys[] = {read(*model.cache, a, 0, Side::k), read(*model.cache, a, 1, Side::k)};
      const std::vector<float> values[] = {read(*model.cache, a, 0, Side::v), read(*model.cache, a, 1, Side::v)};
      const Status status = model.cache->shift_keys(a, 20, 45, rotation, positions);
      REQUIRE_MESSAGE(status.ok(), status.message());
      for (std::uint32_t layer = 0; layer < 2; ++layer) {
        const std::vector<float> got = read(*model.cache, a, layer, Side::k);
        const std::vector<float> expected = turned(keys[layer], spec.layers[layer].kv_heads, spec.layers[layer].head_dim_k, 20, 65,
                                                   rotation, static_cast<double>(positions));
        for (std::size_t i = 0; i < got.size(); ++i) REQUIRE(std::fabs(got[i] - expected[i]) <= 16.0f * 2.4e-7f);
        CHECK(read(*model.cache, a, layer, Side::v) == values[layer]);
        CHECK(read(*model.cache, b, layer, Side::k) == keys[layer]);
      }
      model.check_references();
      SequenceSpec find;
      const auto prompt = counting(0, 70);
      find.tokens = prompt;
      CHECK(model.cache->find_prefix(find).value() == 64);  // of b
      model.destroy(b);
      REQUIRE(model.cache->clear_prefixes().ok());
      CHECK(model.cache->find_prefix(find).value() == 16);  // what a still is by its ids
    }
  }
}

TEST_CASE("host shift: there and back is where it was, within the format's error") {
  CacheSpec spec = PrefixModel::small(24);
  spec.layers = {{2, 64, 64, FormatId::q8_0, FormatId::q8_0, 0, 0}};
  PrefixModel model(spec);
  const SequenceId a = model.create({}).sequence;
  StepEntry entry;
  entry.sequence = a;
  entry.append = 50;
  auto step = model.cache->plan({&entry, 1});
  test::Random random(5);
  std::vector<float> rows(50 * 128);
  for (float& x : rows) x = random.normal();
  RunArgs args;
  args.k.host = args.v.host = reinterpret_cast<std::byte*>(rows.data());
  REQUIRE(model.cache->run(*step.value(), 0, args).ok());
  REQUIRE(model.cache->commit(std::move(step).value()).ok());
  const std::vector<float> before = read(*model.cache, a, 0, Side::k);
  REQUIRE(model.cache->shift_keys(a, 0, 50, rope(32, false), 1000).ok());
  CHECK(read(*model.cache, a, 0, Side::k) != before);
  REQUIRE(model.cache->shift_keys(a, 0, 50, rope(32, false), -1000).ok());
  const std::vector<float> after = read(*model.cache, a, 0, Side::k);
  double error = 0, power = 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    error += std::pow(static_cast<double>(after[i] - before[i]), 2);
    power += std::pow(static_cast<double>(before[i]), 2);
  }
  CHECK(error / power < 2e-4);  // two roundings of q8_0, each of about 4e-5
}

TEST_CASE("host shift: refusals and failures") {
  PrefixModel model(PrefixModel::small(8));
  const SequenceId a = model.prompt(counting(0, 40)).sequence;
  CHECK(model.cache->shift_keys(a, 0, 41, rope(16, false), 1).code() == StatusCode::invalid_argument);
  CHECK(model.cache->shift_keys(a, 0, 40, rope(17, false), 1).message().find("17 frequencies") == 0);
  REQUIRE(model.cache->shift_keys(a, 0, 40, rope(16, false), 0).ok());
  REQUIRE(model.cache->shift_keys(a, 0, 0, rope(16, false), 5).ok());
  model.check_all();
  model.check_references();
  StepEntry entry;
  entry.sequence = a;
  entry.queries = 1;
  auto step = model.cache->plan({&entry, 1});
  CHECK(model.cache->shift_keys(a, 0, 1, rope(16, false), 1).code() == StatusCode::failed_precondition);
}

}  // namespace
}  // namespace kvant
