// Prefix cache and tiers: publishing, hits, spilling to memory and disk and coming back. What a tier cannot do costs a hit, no more.
#include <unistd.h>

#include <filesystem>

#include "scene.hpp"

using namespace faults;

namespace {

constexpr Kind kDeviceKinds[] = {Kind::device_allocation, Kind::submit, Kind::map, Kind::wait, Kind::object, Kind::host_allocation};
constexpr Kind kTierKinds[] = {Kind::device_allocation, Kind::submit, Kind::wait, Kind::host_allocation, Kind::worker_allocation,
                               Kind::file_write, Kind::file_read};

// Without host memory a page stays out of the prefix cache: `fault`.
void prefixes(Pass& pass, bool fault) {
  Scene scene(pass, shared_host(), {.capacity = 96, .flags = KVANT_CACHE_PREFIXES});
  const std::vector<std::int32_t> ids = token_ids(40), others = token_ids(60, 1000);
  const kvant_sequence first = scene.open(ids);
  scene.step(first, 40, 1, ids.data());
  std::uint64_t reused = 0;
  const kvant_sequence second = scene.open(ids, &reused);
  CHECK((reused == 32 || (fault && reused % kPage == 0 && reused < 32)));
  scene.step(second, static_cast<std::uint32_t>(40 - reused), 1, ids.data() + reused);
  scene.results(second);
  auto args = make<kvant_sequence_args>();
  args.tokens = ids.data();
  args.token_count = ids.size();
  std::uint64_t found = 0;
  pass.call("prefix_find", [&] { return api().prefix_find(scene.cache(), &args, &found); });
  CHECK((found == 32 || (fault && found % kPage == 0 && found < 32)));
  scene.drop(first);
  pass.call("sequence_destroy", [&] { return api().sequence_destroy(scene.cache(), first); });
  scene.drop(second);
  pass.call("sequence_destroy", [&] { return api().sequence_destroy(scene.cache(), second); });
  auto policy = make<kvant_policy_args>();
  policy.kind = KVANT_POLICY_ADAPTIVE;
  pass.call("prefix_policy", [&] { return api().prefix_policy(scene.cache(), &policy); });
  // Needs the room of pages that the prefix cache holds.
  const kvant_sequence third = scene.open(others);
  scene.step(third, 60, 1, others.data());
  scene.step(third, 30, 1);
  scene.results(third);
  scene.drop(third);
  pass.call("sequence_destroy", [&] { return api().sequence_destroy(scene.cache(), third); });
  std::uint64_t left = 0;
  pass.call("prefix_clear", [&] { return api().prefix_clear(scene.cache(), &left); });
}

void tiers(Pass& pass, const std::filesystem::path& folder) {
  std::filesystem::remove_all(folder);
  const std::string location = folder.string();
  Scene scene(pass, shared_host(), {.flags = KVANT_CACHE_PREFIXES});
  const kvant_ext_manager& manager = scene.manager();
  auto tier = make<kvant_tier_args>();
  tier.kind = KVANT_TIER_HOST;
  tier.capacity_bytes = 1u << 16;
  kvant_tier_args both[] = {tier, tier};
  both[1].kind = KVANT_TIER_DISK;
  both[1].capacity_bytes = 0;
  both[1].location = location.c_str();
  auto args = make<kvant_tiers_args>();
  args.tier_count = 2;
  args.tiers = both;
  args.flags = KVANT_TIERS_ALWAYS_LOAD;
  pass.call("tiers_set", [&] { return manager.tiers_set(scene.cache(), &args); });
  const std::vector<std::int32_t> ids = token_ids(40);
  kvant_sequence sequence = scene.open(ids);
  scene.step(sequence, 40, 0, ids.data());
  // With a wait, so that what the tiers' threads do is within the call; whether a wait is refused is asked after it.
  pass.call("tiers_store", [&] {
    kvant_error* const error = manager.tiers_store(scene.cache());
    if (error == nullptr) api().error_free(manager.tiers_wait(scene.cache()));
    return error;
  });
  pass.call("tiers_wait", [&] { return manager.tiers_wait(scene.cache()); });
  const State before = state_of(scene.watched());
  scene.drop(sequence);
  pass.call("sequence_destroy", [&] { return api().sequence_destroy(scene.cache(), sequence); });
  std::uint64_t left = 0;
  pass.call("prefix_clear", [&] { return api().prefix_clear(scene.cache(), &left); });
  pass.call("tiers_clear", [&] { return manager.tiers_clear(scene.cache(), 0); });
  auto wanted = make<kvant_sequence_args>();
  wanted.tokens = ids.data();
  wanted.token_count = ids.size();
  pass.call("tiers_prefetch", [&] {
    kvant_error* const error = manager.tiers_prefetch(scene.cache(), &wanted);
    if (error == nullptr) api().error_free(manager.tiers_wait(scene.cache()));
    return error;
  });
  pass.call("tiers_wait", [&] { return manager.tiers_wait(scene.cache()); });
  std::uint64_t reused = 0;
  sequence = scene.open(ids, &reused);
  CHECK((reused == 0 || reused == 16 || reused == 32));
  if (pass.undisturbed()) CHECK(reused == 32);
  // Whatever came back is what was there.
  const State after = state_of(scene.watched());
  REQUIRE(after.contents.size() == before.contents.size());
  for (std::size_t i = 0; i < after.contents.size(); ++i)
    CHECK(std::equal(after.contents[i].begin(), after.contents[i].end(), before.contents[i].begin()));
  pass.result(std::vector<float>{static_cast<float>(reused)});
  scene.destroy();
}

}  // namespace

TEST_CASE("prefixes: published, found, evicted") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) {
    const bool host = kind == Kind::host_allocation;
    sweep("prefixes", kind, [&](Pass& pass) { prefixes(pass, host); }, {.results_may_vary = host, .unreached = {Kind::map}});
  }
}

TEST_CASE("tiers: memory and disk") {
  if (!shared_host().has_device()) return;
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("kvant_faults_tiers." + std::to_string(getpid()));
  for (const Kind kind : kTierKinds)
    sweep("tiers", kind, [&](Pass& pass) { tiers(pass, folder); }, {.results_may_vary = true});
  std::filesystem::remove_all(folder);
}
