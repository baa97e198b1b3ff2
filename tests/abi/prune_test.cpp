// sequence_prune and memory limits that prune, through the C ABI: which tokens stay, that nothing of them changes, and
// what is left as it was when there is no room.
#include <kvant/kvant_ext_manager.h>

#include <algorithm>
#include <numeric>

#include "cache_state.hpp"
#include "mass_model.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kAll = KVANT_MASS_ALL;

std::uint64_t length_of(kvant_cache* cache, kvant_sequence sequence) {
  std::uint64_t length = 0;
  require_ok(api().sequence_length(cache, sequence, &length));
  return length;
}

std::vector<float> rows_of(kvant_cache* cache, kvant_sequence sequence, const MassLayer& layer, std::uint32_t index,
                           std::uint32_t side) {
  const std::uint64_t length = length_of(cache, sequence);
  std::vector<float> data(length * layer.kv_heads * layer.head_dim);
  kvant_tensor out = tensor_of(data);
  require_ok(api().sequence_read(cache, sequence, index, side, 0, length, &out));
  return data;
}

std::vector<float> at_places(const std::vector<float>& rows, std::size_t row,
                             const std::vector<std::uint64_t>& places) {
  std::vector<float> out;
  for (const std::uint64_t place : places)
    out.insert(out.end(), rows.begin() + static_cast<std::ptrdiff_t>(place * row),
               rows.begin() + static_cast<std::ptrdiff_t>((place + 1) * row));
  return out;
}

// Sinks, the newest, and of the others the heaviest; of equal ones the newer.
std::vector<std::uint64_t> expected_places(const std::vector<float>& mass, std::uint64_t keep, std::uint64_t sinks,
                                           std::uint64_t recent) {
  std::vector<std::uint64_t> middle, places;
  for (std::uint64_t t = sinks; t < mass.size() - recent; ++t) middle.push_back(t);
  std::stable_sort(middle.begin(), middle.end(),
                   [&](std::uint64_t a, std::uint64_t b) { return mass[a] != mass[b] ? mass[a] > mass[b] : a > b; });
  middle.resize(keep - sinks - recent);
  for (std::uint64_t t = 0; t < sinks; ++t) places.push_back(t);
  places.insert(places.end(), middle.begin(), middle.end());
  for (std::uint64_t t = mass.size() - recent; t < mass.size(); ++t) places.push_back(t);
  std::sort(places.begin(), places.end());
  return places;
}

kvant_prune_args prune_args(std::uint64_t keep, std::uint32_t sinks = 0, std::uint32_t recent = 0) {
  auto args = make<kvant_prune_args>();
  args.keep_tokens = keep;
  args.sinks = sinks;
  args.recent = recent;
  return args;
}

std::vector<std::uint64_t> prune(const MassCache& counted, kvant_sequence sequence, const kvant_prune_args& args) {
  std::vector<std::uint64_t> places(args.keep_tokens, ~std::uint64_t{0});
  std::uint64_t count = 0;
  require_ok(counted.manager.sequence_prune(counted.cache, sequence, &args, places.data(), &count));
  REQUIRE(count <= places.size());
  for (std::size_t i = count; i < places.size(); ++i) CHECK(places[i] == ~std::uint64_t{0});
  places.resize(count);
  return places;
}

}  // namespace

TEST_CASE("prune: exactly the sinks, the newest and the heaviest stay, bit for bit") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  for (const char* format : {"f32", "q4_0"}) {
    CAPTURE(format);
    MassCache counted(session, {{2, 64, format}, {1, 40, format}}, 512);
    const kvant_sequence other = counted.create(), sequence = counted.create();
    counted.step(other, 50, 50, KVANT_RUN_MASS);
    counted.step(sequence, 150, 150, KVANT_RUN_MASS);
    for (int i = 0; i < 5; ++i) counted.step(sequence, 1, 1, KVANT_RUN_MASS);
    const std::vector<float> all = counted.masses(sequence, kAll, kAll);
    std::vector<std::vector<float>> rows;
    for (std::uint32_t layer = 0; layer < 2; ++layer)
      for (const std::uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V})
        rows.push_back(rows_of(counted.cache, sequence, counted.layers[layer], layer, side));
    const std::vector<float> untouched = counted.masses(other, 0, kAll);

    // At most 155 stay anyway, and a sequence that is shorter than what is kept loses nothing.
    CHECK(prune(counted, sequence, prune_args(155)).size() == 155);
    CHECK(prune(counted, sequence, prune_args(10000)).size() == 155);
    CHECK(prune(counted, other, prune_args(68)).size() == 50);
    CHECK(counted.masses(sequence, kAll, kAll) == all);

    const std::vector<std::uint64_t> expected = expected_places(all, 100, 4, 64);
    const std::vector<std::uint64_t> places = prune(counted, sequence, prune_args(100));
    CHECK(places == expected);
    CHECK(length_of(counted.cache, sequence) == 100);
    for (std::uint32_t layer = 0; layer < 2; ++layer)
      for (const std::uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V}) {
        const MassLayer& shape = counted.layers[layer];
        CHECK(rows_of(counted.cache, sequence, shape, layer, side) ==
              at_places(rows[layer * 2 + side], std::size_t{shape.kv_heads} * shape.head_dim, places));
      }
    CHECK(counted.masses(sequence, kAll, kAll) == at_places(all, 1, places));
    CHECK(counted.masses(other, 0, kAll) == untouched);

    // Again, with sinks and newest of the caller's; no places wanted.
    const std::vector<float> fewer = counted.masses(sequence, kAll, kAll);
    const std::vector<float> keys = rows_of(counted.cache, sequence, counted.layers[0], 0, KVANT_SIDE_K);
    std::uint64_t count = 0;
    const kvant_prune_args args = prune_args(20, 2, 7);
    require_ok(counted.manager.sequence_prune(counted.cache, sequence, &args, nullptr, &count));
    CHECK(count == 20);
    CHECK(rows_of(counted.cache, sequence, counted.layers[0], 0, KVANT_SIDE_K) ==
          at_places(keys, 128, expected_places(fewer, 20, 2, 7)));

    // It goes on: attention over what is left and a fresh token, and masses of those.
    counted.forget(sequence);
    require_ok(counted.manager.sequence_mass_clear(counted.cache, sequence));
    counted.step(sequence, 1, 1, KVANT_RUN_MASS);
    const std::vector<float> found = counted.masses(sequence, 0, 1);
    const std::vector<double> wanted = counted.expected(sequence, 0, 1);
    REQUIRE(found.size() == 21);
    for (std::size_t t = 0; t < found.size(); ++t) CHECK(found[t] == doctest::Approx(wanted[t]).epsilon(2e-4));
  }
}

TEST_CASE("prune: a sliding window goes on seeing what it saw") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "f32"}, {2, 64, "f32", 24, 3}}, 512);
  const kvant_sequence sequence = counted.create();
  counted.step(sequence, 100, 100, KVANT_RUN_MASS);
  kvant_sequence whole = 0;
  require_ok(api().sequence_fork(counted.cache, sequence, 100, &whole));
  std::uint64_t count = 0;
  // Its 24 newest tokens stay whatever the caller says, and its 3 sinks.
  kvant_prune_args args = prune_args(25, 1, 8);
  check_error(counted.manager.sequence_prune(counted.cache, sequence, &args, nullptr, &count),
              KVANT_ERROR_INVALID_ARGUMENT, "sequence_prune",
              "keep_tokens (25) is less than the 3 sinks and 24 recent tokens");
  args = prune_args(40, 1, 8);
  require_ok(counted.manager.sequence_prune(counted.cache, sequence, &args, nullptr, &count));
  CHECK(count == 40);
  counted.step(whole, 1, 1, 0);
  const std::vector<float> out = counted.out_of(1), out_of_all = counted.out_of(0);
  counted.repeat(sequence, 1, 1, 0);
  CHECK(counted.out_of(0) != out_of_all);
  const std::vector<float> same = counted.out_of(1);
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(same[i] == doctest::Approx(out[i]).epsilon(1e-4));
  check_error(api().sequence_truncate(counted.cache, sequence, 30), KVANT_ERROR_FAILED_PRECONDITION,
              "sequence_truncate", "was pruned to 40");
}

TEST_CASE("prune: shared pages stay as they are, or there is room for others") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "f16"}}, 256);
  const kvant_sequence sequence = counted.create();
  counted.step(sequence, 112, 112, KVANT_RUN_MASS);
  const std::vector<float> keys = rows_of(counted.cache, sequence, counted.layers[0], 0, KVANT_SIDE_K);
  const std::vector<float> mass = counted.masses(sequence, kAll, kAll);
  kvant_sequence fork = 0;
  require_ok(api().sequence_fork(counted.cache, sequence, 112, &fork));
  const std::vector<std::uint64_t> places = prune(counted, fork, prune_args(48, 4, 16));
  CHECK(places == expected_places(mass, 48, 4, 16));
  CHECK(rows_of(counted.cache, sequence, counted.layers[0], 0, KVANT_SIDE_K) == keys);
  CHECK(counted.masses(sequence, kAll, kAll) == mass);
  CHECK(rows_of(counted.cache, fork, counted.layers[0], 0, KVANT_SIDE_K) == at_places(keys, 128, places));

  require_ok(api().sequence_destroy(counted.cache, fork));
  require_ok(api().sequence_fork(counted.cache, sequence, 112, &fork));
  const kvant_sequence full = counted.create();
  counted.step(full, 144, 0, 0);  // the last page is taken
  const CacheState before = state_of(counted.cache, {sequence, fork, full}, 2, 64);
  std::uint64_t count = 9;
  const kvant_prune_args args = prune_args(48, 4, 16);
  check_error(counted.manager.sequence_prune(counted.cache, fork, &args, nullptr, &count),
              KVANT_ERROR_RESOURCE_EXHAUSTED, "sequence_prune", "pages");
  CHECK(count == 9);
  CHECK(state_of(counted.cache, {sequence, fork, full}, 2, 64) == before);
  CHECK(counted.masses(fork, kAll, kAll) == mass);
}

TEST_CASE("prune: a limit of 5 % of a full pool in use is met") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "f32"}, {2, 64, "f32"}}, 1024, 1);
  const kvant_ext_manager& m = counted.manager;
  const kvant_sequence one = counted.create(), two = counted.create();
  counted.name_tokens = true;  // V says by its signs which token a row is, in any format
  counted.step(one, 688, 8, KVANT_RUN_MASS);
  counted.step(two, 336, 8, KVANT_RUN_MASS);
  const std::uint64_t full = stats_of(counted.cache).pool_bytes;
  CHECK(stats_of(counted.cache).used_pages == stats_of(counted.cache).total_pages);
  const std::vector<float> mass_one = counted.masses(one, kAll, kAll), mass_two = counted.masses(two, kAll, kAll);
  auto args = make<kvant_memory_args>();
  args.limit_bytes = full / 20;
  const char* text = nullptr;
  check_error(m.memory_plan(counted.cache, &args, &text), KVANT_ERROR_RESOURCE_EXHAUSTED, "memory_plan",
              "cannot be met");
  args.flags = KVANT_MEMORY_PRUNE;
  require_ok(m.memory_plan(counted.cache, &args, &text));
  const std::string plan = text;
  INFO(plan);
  CHECK(plan.find("prune sequence") != std::string::npos);
  CHECK(plan.find("from 688 to ") != std::string::npos);
  CHECK(plan.find("convert K of layer 1 from f32 to q8_0") != std::string::npos);
  CHECK(stats_of(counted.cache).pool_bytes == full);
  require_ok(m.memory_limit(counted.cache, &args));
  CHECK(stats_of(counted.cache).pool_bytes <= args.limit_bytes);
  for (const auto& [sequence, mass] : {std::pair{one, mass_one}, std::pair{two, mass_two}}) {
    const std::uint64_t left = length_of(counted.cache, sequence);
    CHECK(left < mass.size());
    REQUIRE(left >= 68);
    const std::vector<std::uint64_t> expected = expected_places(mass, left, 4, 64);
    CHECK(counted.named_tokens(sequence, 1) == expected);
  }
  // Less than the sinks and the newest tokens of both take cannot be met; with fewer of them it can.
  const CacheState after = state_of(counted.cache, {one, two}, 2, 64);
  args.limit_bytes = full / 80;
  check_error(m.memory_limit(counted.cache, &args), KVANT_ERROR_RESOURCE_EXHAUSTED, "memory_limit", "pruned as far as may be");
  CHECK(state_of(counted.cache, {one, two}, 2, 64) == after);
  args.sinks = 1;
  args.recent = 8;
  require_ok(m.memory_limit(counted.cache, &args));
  CHECK(stats_of(counted.cache).pool_bytes <= args.limit_bytes);
  CHECK(counted.named_tokens(one, 0).front() == 0);
  CHECK(counted.named_tokens(one, 0).back() == 687);
}

TEST_CASE("prune: a limit over sequences that share their pages is met, or changes nothing") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "f32"}}, 512, 1);
  counted.name_tokens = true;
  const kvant_sequence one = counted.create();
  counted.step(one, 512, 8, KVANT_RUN_MASS);
  kvant_sequence two = 0;
  require_ok(api().sequence_fork(counted.cache, one, 512, &two));
  const std::uint64_t full = stats_of(counted.cache).pool_bytes;
  const CacheState before = state_of(counted.cache, {one, two}, 2, 64);
  const std::vector<float> mass = counted.masses(one, kAll, kAll);
  auto args = make<kvant_memory_args>();
  args.limit_bytes = full / 10;
  args.flags = KVANT_MEMORY_PRUNE;
  const Outcome outcome = take(counted.manager.memory_limit(counted.cache, &args));
  INFO(outcome.message);
  if (outcome.code != 0) {
    CHECK(outcome.code == KVANT_ERROR_RESOURCE_EXHAUSTED);
    CHECK(state_of(counted.cache, {one, two}, 2, 64) == before);
    const char* text = nullptr;
    check_error(counted.manager.memory_plan(counted.cache, &args, &text), KVANT_ERROR_RESOURCE_EXHAUSTED, "memory_plan", "");
    return;
  }
  CHECK(stats_of(counted.cache).pool_bytes <= args.limit_bytes);
  for (const kvant_sequence sequence : {one, two}) {
    const std::uint64_t left = length_of(counted.cache, sequence);
    REQUIRE(left >= 68);
    CHECK(counted.named_tokens(sequence, 0) == expected_places(mass, left, 4, 64));
  }
}
