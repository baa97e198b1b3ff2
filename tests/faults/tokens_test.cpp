// Tokens outside of steps: write, keep, identify, shift, attention mass and pruning, a limit of memory that prunes.
#include "scene.hpp"

using namespace faults;

namespace {

constexpr Kind kDeviceKinds[] = {Kind::device_allocation, Kind::submit, Kind::map, Kind::wait, Kind::object, Kind::host_allocation};

// `host`: host memory is what fails. Then a page may stay out of the prefix cache, and the other sequence finds fewer.
void tokens(Pass& pass, bool host) {
  Scene scene(pass, shared_host(), {.flags = KVANT_CACHE_PREFIXES});
  const kvant_ext_manager& manager = scene.manager();
  const kvant_sequence sequence = scene.create();
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    std::vector<float> k = abi_test::random_floats(40 * kRow, 5 + layer), v = abi_test::random_floats(40 * kRow, 15 + layer);
    const kvant_tensor k_view = abi_test::tensor_of(k), v_view = abi_test::tensor_of(v);
    pass.call("sequence_write", [&] { return manager.sequence_write(scene.cache(), sequence, layer, 0, 40, &k_view, &v_view); });
  }
  const std::vector<std::int32_t> ids = token_ids(40);
  pass.call("sequence_identify", [&] { return manager.sequence_identify(scene.cache(), sequence, 40, ids.data()); });
  scene.results(sequence);
  // Another sequence of the same pages: what follows must not write into them.
  const kvant_sequence other = scene.open(ids);
  std::vector<std::uint64_t> places;
  for (std::uint64_t i = 0; i < 40; ++i)
    if (i < 4 || i > 8) places.push_back(i);
  pass.call("sequence_keep", [&] { return manager.sequence_keep(scene.cache(), sequence, places.size(), places.data()); });
  scene.results(sequence);
  if (!host) scene.results(other);
  double frequencies[kDim / 2];
  for (std::size_t i = 0; i < kDim / 2; ++i) frequencies[i] = 1.0 / static_cast<double>(i + 1);
  auto rotation = make<kvant_rotation>();
  rotation.frequencies = frequencies;
  rotation.pair_count = kDim / 2;
  pass.call("sequence_shift", [&] { return manager.sequence_shift(scene.cache(), sequence, 4, 31, &rotation, -5); },
            Promise::midway);
  scene.results(sequence);
  std::uint64_t cleared = 0;
  scene.watched().sequences.clear();
  pass.call("clear_all", [&] { return manager.clear_all(scene.cache(), &cleared); });
}

void mass(Pass& pass) {
  Scene scene(pass, shared_host(), {.capacity = 256, .flags = KVANT_CACHE_MASS});
  const kvant_ext_manager& manager = scene.manager();
  const kvant_sequence sequence = scene.create();
  scene.step(sequence, 60, 4, nullptr, KVANT_RUN_MASS);
  std::vector<float> weights(60);
  pass.call("sequence_mass", [&] {
    return manager.sequence_mass(scene.cache(), sequence, KVANT_MASS_ALL, KVANT_MASS_ALL, 0, 60, weights.data());
  });
  auto prune = make<kvant_prune_args>();
  prune.keep_tokens = 40;
  prune.sinks = 4;
  prune.recent = 16;
  std::vector<std::uint64_t> places(40);
  std::uint64_t kept = 0;
  pass.call("sequence_prune", [&] { return manager.sequence_prune(scene.cache(), sequence, &prune, places.data(), &kept); });
  scene.results(sequence);
  const kvant_sequence old = scene.create();
  scene.step(old, 150, 2, nullptr, KVANT_RUN_MASS);
  auto stats = make<kvant_cache_stats>();
  abi_test::require_ok(api().cache_stats(scene.cache(), &stats));
  auto cool = make<kvant_cool_args>();
  cool.target_bytes = stats.pool_bytes * 9 / 10;
  pass.call("cache_cool", [&] { return manager.cache_cool(scene.cache(), &cool, nullptr); }, Promise::midway);
  scene.results(old);
  scene.step(old, 1, 1);
  pass.call("sequence_mass_clear", [&] { return manager.sequence_mass_clear(scene.cache(), sequence); });
  scene.step(sequence, 1, 1);
}

void limit(Pass& pass) {
  Scene scene(pass, shared_host(), {.capacity = 256, .flags = KVANT_CACHE_MASS});
  const kvant_ext_manager& manager = scene.manager();
  const kvant_sequence first = scene.create(), second = scene.create();
  scene.step(first, 100, 2, nullptr, KVANT_RUN_MASS);
  scene.step(second, 60, 2, nullptr, KVANT_RUN_MASS);
  pass.call("memory_weight", [&] { return manager.memory_weight(scene.cache(), 1, KVANT_SIDE_K, 3.0); });
  auto args = make<kvant_memory_args>();
  auto stats = make<kvant_cache_stats>();
  abi_test::require_ok(api().cache_stats(scene.cache(), &stats));
  args.limit_bytes = stats.pool_bytes * 3 / 5;
  const char* text = nullptr;
  pass.call("memory_plan", [&] { return manager.memory_plan(scene.cache(), &args, &text); });
  pass.call("memory_limit", [&] { return manager.memory_limit(scene.cache(), &args); },
            Promise::midway);
  scene.results(first);
  scene.results(second);
  args.flags = KVANT_MEMORY_PRUNE;
  args.sinks = 4;
  args.recent = 16;
  args.limit_bytes = stats.pool_bytes * 2 / 5;
  pass.call("memory_limit prune", [&] { return manager.memory_limit(scene.cache(), &args); }, Promise::midway);
  scene.step(second, 1, 1);
  scene.results(first);
  scene.results(second);
}

}  // namespace

TEST_CASE("tokens: write, identify, keep, shift") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) {
    const bool host = kind == Kind::host_allocation;
    sweep("tokens", kind, [&](Pass& pass) { tokens(pass, host); }, {.unreached = {Kind::map}});
  }
}

TEST_CASE("mass: counted, read, pruned by") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) sweep("mass", kind, mass, {.unreached = {Kind::map}});
}

TEST_CASE("limit: narrower formats, then pruning") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) sweep("limit", kind, limit, {.dense = 8, .stride = 29, .unreached = {Kind::map}});
}
