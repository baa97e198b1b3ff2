// Means of centred layers: the arithmetic, and when a cache measures, keeps, saves and takes them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "cache_key.hpp"
#include "host_test_executor.hpp"
#include "layer_means.hpp"
#include "means.hpp"
#include "memory_planner.hpp"
#include "rotation_matrix.hpp"
#include "step.hpp"

namespace kvant {
namespace {

constexpr std::uint32_t kHeads = 2, kDim = 40;

// Normal rows [token][head][dim]; element e of every row has `shift` * (e % 3) added.
std::vector<float> make_rows(std::size_t tokens, float shift, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(tokens * kHeads * kDim);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = normal(engine) + shift * static_cast<float>(i % kDim % 3);
  return rows;
}

CacheSpec centred_spec(FormatId format) {
  LayerSpec layer;
  layer.kv_heads = kHeads;
  layer.head_dim_k = layer.head_dim_v = kDim;
  layer.format_k = layer.format_v = format;
  layer.centre_k = layer.centre_v = true;
  layer.rotate_v = true;
  CacheSpec spec;
  spec.layers = {layer};
  spec.capacity_tokens = 1024;
  return spec;
}

struct Fixture {
  explicit Fixture(const CacheSpec& spec) {
    auto made = Cache::create(executor, spec, Log{});
    REQUIRE(made.ok());
    cache = std::move(made.value());
  }

  void append(SequenceId sequence, const std::vector<float>& k, const std::vector<float>& v) {
    StepEntry entry;
    entry.sequence = sequence;
    entry.append = static_cast<std::uint32_t>(k.size() / (kHeads * kDim));
    auto step = cache->plan({&entry, 1});
    REQUIRE(step.ok());
    RunArgs args;
    args.k = view(k);
    args.v = view(v);
    REQUIRE(cache->run(*step.value(), 0, args).ok());
    REQUIRE(cache->commit(std::move(step.value())).ok());
  }

  static TensorView view(const std::vector<float>& rows) {
    TensorView tensor;
    tensor.host = reinterpret_cast<std::byte*>(const_cast<float*>(rows.data()));
    return tensor;
  }

  std::vector<float> means(Side side) {
    auto means = cache->means(0, side);
    REQUIRE(means.ok());
    return means.value();
  }
  bool centred(Side side) {
    for (const float x : means(side))
      if (x != 0.0f) return true;
    return false;
  }

  test::TestExecutor executor;
  std::unique_ptr<Cache> cache;
};

std::vector<std::byte> save(Cache& cache) {
  std::vector<std::byte> bytes;
  StateSelection selection;
  selection.all_sequences = true;
  REQUIRE(cache.save_state(selection, [&bytes](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return Status();
  }).ok());
  return bytes;
}

Status load(Cache& cache, std::span<const std::byte> bytes) {
  return cache
      .load_state([bytes](std::span<std::byte> out) mutable -> Result<std::size_t> {
        const std::size_t size = std::min(out.size(), bytes.size());
        std::copy_n(bytes.begin(), size, out.begin());
        bytes = bytes.subspan(size);
        return size;
      })
      .status();
}

TEST_CASE("host means: a memory limit counts them") {
  Fixture fixture(centred_spec(FormatId::q8_0));
  const SequenceId id = fixture.cache->create_sequence().value();
  fixture.append(id, make_rows(1024, 3.0f, 1), make_rows(1024, 3.0f, 2));
  const std::uint64_t bytes = fixture.cache->memory_use().pool_bytes;
  const MemoryPlan plan = fixture.cache->plan_limit(bytes, {}).value();
  CHECK(plan.bytes_before == bytes);
  CHECK(plan.actions.empty());
  CHECK_FALSE(fixture.cache->plan_limit(bytes - 1, {})->actions.empty());
}

TEST_CASE("host means: the mean is that of the rows, rotated if they are, where it pays") {
  const std::size_t tokens = 100;
  const std::vector<float> rows = make_rows(tokens * kHeads, 2.0f, 1);  // all of one head here
  std::vector<double> exact(kDim, 0.0);
  for (std::size_t i = 0; i < rows.size(); ++i) exact[i % kDim] += static_cast<double>(rows[i]);
  const double count = static_cast<double>(rows.size() / kDim);
  for (double& x : exact) x /= count;
  const std::vector<double> turned = reference::rotated(exact);
  const std::vector<float> plain = mean_of_rows(rows, kDim, static_cast<float>(1.0 / count), false);
  const std::vector<float> rotated = mean_of_rows(rows, kDim, static_cast<float>(1.0 / count), true);
  for (std::size_t i = 0; i < kDim; ++i) {
    CHECK(std::fabs(static_cast<double>(plain[i]) - exact[i]) < 1e-5);
    CHECK(std::fabs(static_cast<double>(rotated[i]) - turned[i]) < 1e-4);
  }
}

TEST_CASE("host means: none where it holds a tenth of the energy or less, or is no number") {
  const auto zeros = [](const std::vector<float>& rows) {
    for (const float x : mean_of_rows(rows, kDim, static_cast<float>(kDim) / static_cast<float>(rows.size()), true))
      if (x != 0.0f) return false;
    return true;
  };
  // A constant c beside normal rows is c^2 / (c^2 + 1) of the energy.
  std::vector<float> rows = make_rows(400, 0.0f, 2);
  CHECK(zeros(rows));
  for (float& x : rows) x += 0.25f;
  CHECK(zeros(rows));
  for (float& x : rows) x += 0.2f;
  CHECK_FALSE(zeros(rows));
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 3e38f, 1e30f}) {
    rows[77] = bad;
    CHECK(zeros(rows));
  }
  CHECK(zeros(std::vector<float>(10 * kDim, 0.0f)));
}

TEST_CASE("host means: the first rows of a cache decide, enough of them, once") {
  Fixture f(centred_spec(FormatId::f32));
  const SequenceId first = f.cache->create_sequence().value();
  const std::vector<float> few = make_rows(LayerMeans::kLeastTokens - 1, 3.0f, 3), many = make_rows(LayerMeans::kLeastTokens, 3.0f, 4);
  f.append(first, few, few);
  CHECK_FALSE(f.centred(Side::k));
  f.append(first, many, many);  // rows lie there without means: it is too late
  CHECK_FALSE(f.centred(Side::k));
  REQUIRE(f.cache->destroy_sequence(first).ok());
  const SequenceId second = f.cache->create_sequence().value();
  f.append(second, many, many);
  CHECK(f.centred(Side::k));
  CHECK(f.centred(Side::v));
  const std::vector<float> k = f.means(Side::k);
  f.append(second, make_rows(64, -5.0f, 5), make_rows(64, -5.0f, 6));
  CHECK(f.means(Side::k) == k);
  REQUIRE(f.cache->destroy_sequence(second).ok());
  f.append(f.cache->create_sequence().value(), make_rows(64, -5.0f, 5), make_rows(64, -5.0f, 6));
  CHECK(f.means(Side::k) == k);  // a mean that was measured stays
}

TEST_CASE("host means: rows come back as they were, and given means are what is subtracted") {
  CacheSpec spec = centred_spec(FormatId::f32);
  spec.layers[0].means_k = make_rows(1, 4.0f, 7);
  Fixture f(spec);
  CHECK(f.means(Side::k) == spec.layers[0].means_k);
  const SequenceId id = f.cache->create_sequence().value();
  const std::vector<float> k = make_rows(50, 4.0f, 8), v = make_rows(50, 4.0f, 9);
  f.append(id, k, v);
  CHECK(f.means(Side::k) == spec.layers[0].means_k);
  CHECK(f.centred(Side::v));
  std::vector<float> read(k.size());
  for (const Side side : {Side::k, Side::v}) {
    REQUIRE(f.cache->read(id, 0, side, 0, 50, Fixture::view(read)).ok());
    const std::vector<float>& rows = side == Side::k ? k : v;
    for (std::size_t i = 0; i < rows.size(); ++i) REQUIRE(std::fabs(read[i] - rows[i]) < 2e-5f);
  }
  std::vector<std::byte> bytes(canonical_row_bytes(format_info(FormatId::f32), kDim) * kHeads);
  REQUIRE(f.cache->read_canonical(id, 0, Side::k, 7, 1, bytes).ok());
  float lying = 0.0f;
  std::memcpy(&lying, bytes.data() + 5 * sizeof(float), sizeof lying);
  const std::size_t at = 7 * kHeads * kDim + 5;
  CHECK(lying == k[at] - spec.layers[0].means_k[5]);
}

TEST_CASE("host means: saved states bring them, and do not mix with others") {
  Fixture from(centred_spec(FormatId::q8_0));
  from.append(from.cache->create_sequence().value(), make_rows(64, 3.0f, 10), make_rows(64, 3.0f, 11));
  const std::vector<std::byte> state = save(*from.cache);

  Fixture to(centred_spec(FormatId::q8_0));
  REQUIRE(load(*to.cache, state).ok());
  CHECK(to.means(Side::k) == from.means(Side::k));
  CHECK(to.means(Side::v) == from.means(Side::v));
  REQUIRE(load(*to.cache, state).ok());  // again: the same means
  const auto ids = to.cache->sequences();
  REQUIRE(ids.size() == 2);
  std::vector<float> before(64 * kHeads * kDim), after(before.size());
  REQUIRE(from.cache->read(from.cache->sequences()[0], 0, Side::v, 0, 64, Fixture::view(before)).ok());
  REQUIRE(to.cache->read(ids[1], 0, Side::v, 0, 64, Fixture::view(after)).ok());
  CHECK(before == after);
  to.append(ids[0], make_rows(64, -9.0f, 12), make_rows(64, -9.0f, 13));
  CHECK(to.means(Side::k) == from.means(Side::k));

  Fixture other(centred_spec(FormatId::q8_0));
  other.append(other.cache->create_sequence().value(), make_rows(64, 2.0f, 14), make_rows(64, 3.0f, 11));
  const std::vector<float> own = other.means(Side::k);
  const Status refused = load(*other.cache, state);
  CHECK(refused.code() == StatusCode::incompatible);
  CHECK(refused.message().find("means of K of layer 0") != std::string::npos);
  CHECK(other.means(Side::k) == own);
  CHECK(other.cache->sequences().size() == 1);
}

TEST_CASE("host means: a load that fails takes none") {
  Fixture from(centred_spec(FormatId::q8_0));
  from.append(from.cache->create_sequence().value(), make_rows(64, 3.0f, 10), make_rows(64, 3.0f, 11));
  std::vector<std::byte> state = save(*from.cache);
  state.resize(state.size() - 1);
  Fixture to(centred_spec(FormatId::q8_0));
  CHECK_FALSE(load(*to.cache, state).ok());
  CHECK_FALSE(to.centred(Side::k));
  to.append(to.cache->create_sequence().value(), make_rows(64, -3.0f, 12), make_rows(64, -3.0f, 13));
  CHECK(to.centred(Side::k));
  CHECK(to.means(Side::k) != from.means(Side::k));
}

TEST_CASE("host means: a step that fails decides nothing") {
  Fixture f(centred_spec(FormatId::q8_0));
  const std::vector<float> rows = make_rows(64, 3.0f, 10), others = make_rows(64, -3.0f, 11);
  const SequenceId id = f.cache->create_sequence().value();
  StepEntry entry;
  entry.sequence = id;
  entry.append = 64;
  auto step = f.cache->plan({&entry, 1});
  REQUIRE(step.ok());
  RunArgs args;
  args.k = args.v = Fixture::view(rows);
  f.executor.fail_submit = 0;
  CHECK_FALSE(f.cache->run(*step.value(), 0, args).ok());
  f.executor.fail_submit = -1;
  args.k = args.v = Fixture::view(others);
  REQUIRE(f.cache->run(*step.value(), 0, args).ok());
  REQUIRE(f.cache->commit(std::move(step.value())).ok());
  CHECK(f.means(Side::k)[2] < -4.0f);
}

TEST_CASE("host means: tiers and keys know of them") {
  CacheSpec measured = centred_spec(FormatId::q8_0);
  measured.prefix_cache = true;
  Fixture f(measured);
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(nullptr);
  const Status refused = f.cache->set_tiers(std::move(tiers), TierOptions{});
  CHECK(refused.code() == StatusCode::failed_precondition);
  CHECK(refused.message().find("give the means") != std::string::npos);

  CacheSpec given = measured, others = measured, plain = measured;
  given.layers[0].means_k = given.layers[0].means_v = std::vector<float>(kHeads * kDim, 1.0f);
  others = given;
  others.layers[0].means_k[3] = 1.5f;
  plain.layers[0].centre_k = plain.layers[0].centre_v = false;
  CHECK(cache_content_key(measured) != cache_content_key(plain));
  CHECK(cache_content_key(given) != cache_content_key(measured));
  CHECK(cache_content_key(given) != cache_content_key(others));
  CHECK(side_text(plain.layers[0], Side::v) == "q8_0 rotated");
  CHECK(side_text(measured.layers[0], Side::k) == "q8_0 centred");
}

}  // namespace
}  // namespace kvant
