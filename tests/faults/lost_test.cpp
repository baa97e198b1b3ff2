// A lost device: the failing call and every later one say so, what the host has survives, and another device takes over: from the
// tiers, and from a save.
#include <unistd.h>

#include <filesystem>

#include "scene.hpp"

using namespace faults;
using abi_test::check_ok;
using abi_test::Outcome;
using abi_test::require_ok;
using abi_test::take;

namespace {

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("kvant_faults_lost." + std::to_string(getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

kvant_cache* cache_of(const Host& host) {
  const Shape shape{.flags = KVANT_CACHE_PREFIXES};
  const std::vector<kvant_layer_args> layers = layers_of(host, shape);
  const kvant_cache_args args = cache_args(layers, shape);
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(host.device, &args, &cache));
  return cache;
}

void set_disk(const Host& host, kvant_cache* cache, const std::string& location) {
  auto tier = make<kvant_tier_args>();
  tier.kind = KVANT_TIER_DISK;
  tier.location = location.c_str();
  auto args = make<kvant_tiers_args>();
  args.tier_count = 1;
  args.tiers = &tier;
  args.flags = KVANT_TIERS_ALWAYS_LOAD;
  require_ok(host.manager()->tiers_set(cache, &args));
}

kvant_sequence_args prompt(const std::vector<std::int32_t>& ids) {
  auto args = make<kvant_sequence_args>();
  args.tokens = ids.data();
  args.token_count = ids.size();
  return args;
}

// Two layers of a step that appends and asks once.
struct Step {
  abi_test::StepData data;
  kvant_step* step = nullptr;

  Outcome run(kvant_cache* cache, kvant_sequence sequence, std::uint32_t append, const std::int32_t* ids) {
    auto entry = make<kvant_step_entry>();
    entry.sequence = sequence;
    entry.append = append;
    entry.queries = 1;
    entry.tokens = ids;
    auto args = make<kvant_step_args>();
    args.entry_count = 1;
    args.entries = &entry;
    if (Outcome outcome = take(api().step_plan(cache, &args, &step)); outcome.code != 0) return outcome;
    data.k = abi_test::random_floats(append * kRow, 1);
    data.v = abi_test::random_floats(append * kRow, 2);
    data.q = abi_test::random_floats(kQueryRow, 3);
    data.out.assign(kQueryRow, 0.0F);
    data.q_heads = kQueryHeads;
    std::vector<kvant_tensor> tensors;
    const kvant_run_args run_args = abi_test::run_args_of(data, tensors);
    for (std::uint32_t layer = 0; layer < 2; ++layer)
      if (Outcome outcome = take(api().step_run(step, layer, &run_args)); outcome.code != 0) return outcome;
    return take(api().step_commit(step));
  }
};

void check_lost(const Outcome& outcome) {
  CAPTURE(outcome.source);
  CHECK(outcome.code == KVANT_ERROR_DATA_LOSS);
  CHECK(outcome.message.find("lost") + outcome.message.find("LOST") != 2 * std::string::npos);
}

}  // namespace

TEST_CASE("lost: every later call says so; tiers and a save bring the contents to another device") {
  if (!shared_host().has_device()) return;
  const std::int64_t objects = live_vulkan_objects();
  const Folder folder;
  const std::string save = (folder.path / "save").string(), tier = (folder.path / "tier").string();
  const std::vector<std::int32_t> ids = token_ids(40);
  const kvant_sequence_args known = prompt(ids);
  State before;
  std::uint64_t events = 1;
  // The first, second, ... submit or wait of the decode step is the one at which the device is lost.
  for (std::uint64_t n = 1; n <= events; ++n) {
    CAPTURE(n);
    Host host;
    Watched watched;
    watched.layers.assign(2, {kHeads, kDim});
    kvant_cache* cache = watched.cache = cache_of(host);
    set_disk(host, cache, tier);
    kvant_sequence sequence = 0;
    require_ok(api().sequence_open(cache, &known, &sequence, nullptr));
    if (n == 1) {
      REQUIRE(Step{}.run(cache, sequence, 40, ids.data()).code == 0);
    } else {  // the tier has the first pages
      Step step;
      std::uint64_t length = 0;
      require_ok(api().sequence_length(cache, sequence, &length));
      REQUIRE(step.run(cache, sequence, static_cast<std::uint32_t>(40 - length), ids.data() + length).code == 0);
    }
    watched.sequences = {sequence};
    auto state = make<kvant_state_args>();
    state.flags = KVANT_STATE_ALL_SEQUENCES | KVANT_STATE_PREFIXES;
    if (n == 1) {
      before = state_of(watched);
      require_ok(host.manager()->state_save_file(cache, &state, save.c_str()));
      require_ok(host.manager()->tiers_store(cache));
      require_ok(host.manager()->tiers_wait(cache));
    }

    Step decode;
    arm(Kind::lost, n);
    begin_call();
    const Outcome outcome = decode.run(cache, sequence, 1, nullptr);
    end_call();
    const bool was_fired = fired();
    if (n == 1) events = 3;  // at least: a step_run of each layer submits, and waits for its answer
    if (!was_fired) {
      CHECK(outcome.code == 0);
      api().cache_destroy(cache);
      break;
    }
    if (n == events) ++events;
    // A query that only tidies up may meet it first: then the call itself has done what it says.
    const bool done = outcome.code == 0;
    if (!done) check_lost(outcome);
    arm(Kind::none, 0);

    // Every call that needs the device.
    std::vector<float> rows(kRow);
    const kvant_tensor view = abi_test::tensor_of(rows);
    if (!done) api().step_abort(std::exchange(decode.step, nullptr));
    check_lost(take(api().sequence_read(cache, sequence, 0, KVANT_SIDE_K, 0, 1, &view)));
    check_lost(take(api().cache_convert(cache, 0, KVANT_SIDE_K, host.format("q4_0"))));
    check_lost(take(host.manager()->state_save_file(cache, &state, (folder.path / "late").c_str())));
    CHECK(!std::filesystem::exists(folder.path / "late"));
    check_lost(Step{}.run(cache, sequence, 30, nullptr));
    std::vector<float> floats(kDim, 1.0F), back(kDim);
    check_lost(take(api().quantize(host.device, host.format("f32"), kDim, 1, floats.data(), kDim * 4, back.data(), kDim * 4)));
    double rate = 0;
    check_lost(take(api().device_measure_copy(host.device, 1u << 16, &rate)));
    // What the host knows is still there.
    std::uint64_t length = 0;
    check_ok(api().sequence_length(cache, sequence, &length));
    CHECK(length == (done ? 41 : 40));
    std::uint64_t found = 0;
    check_ok(api().prefix_find(cache, &known, &found));
    CHECK(found == 32);

    // Another device of the same context, while the lost one is open still.
    Host other{Host::Empty{}};
    auto device_args = make<kvant_device_args>();
    device_args.device_index = KVANT_DEVICE_BEST;
    const kvant_context_args context = context_args();
    require_ok(api().context_create(&context, &other.context));
    require_ok(api().device_open(other.context, &device_args, &other.device));
    Watched restored;
    restored.layers = watched.layers;
    restored.cache = cache_of(other);
    std::uint32_t count = 0;
    require_ok(other.manager()->state_load_file(restored.cache, save.c_str(), &count));
    REQUIRE(count == 1);
    std::uint64_t was = 0;
    kvant_sequence loaded = 0;
    require_ok(other.manager()->state_loaded(restored.cache, 0, &was, &loaded));
    restored.sequences = {loaded};
    CHECK((state_of(restored).contents == before.contents));
    CHECK(Step{}.run(restored.cache, loaded, 1, nullptr).code == 0);
    api().cache_destroy(restored.cache);

    restored.cache = cache_of(other);
    set_disk(other, restored.cache, tier);
    std::uint64_t reused = 0;
    require_ok(api().sequence_open(restored.cache, &known, &loaded, &reused));
    CHECK(reused == 32);
    restored.sequences = {loaded};
    const State from_tier = state_of(restored);
    for (std::size_t i = 0; i < from_tier.contents.size(); ++i)
      CHECK(std::equal(from_tier.contents[i].begin(), from_tier.contents[i].end(), before.contents[i].begin()));
    api().cache_destroy(restored.cache);
    api().cache_destroy(cache);
  }
  arm(Kind::none, 0);
  CHECK(events > 3);
  CHECK(live_vulkan_objects() == objects);
}

TEST_CASE("pool: a step that finds too few pages in the midst of its sequences takes none") {
  if (!shared_host().has_device()) return;
  Host& host = shared_host();
  const Shape shape{.capacity = 64, .two_groups = true};
  const std::vector<kvant_layer_args> layers = layers_of(host, shape);
  const kvant_cache_args args = cache_args(layers, shape);
  Watched watched;
  watched.layers.assign(2, {kHeads, kDim});
  require_ok(api().cache_create(host.device, &args, &watched.cache));
  kvant_sequence first = 0, second = 0, child = 0;
  require_ok(api().sequence_create(watched.cache, &first));
  require_ok(api().sequence_create(watched.cache, &second));
  REQUIRE(Step{}.run(watched.cache, first, 20, nullptr).code == 0);
  require_ok(api().sequence_fork(watched.cache, first, 18, &child));  // shares a page, and has an open one of its own
  watched.sequences = {first, second, child};
  const State before = state_of(watched);
  // Three pages of four are held in either group: the first entry would fit, the second would not.
  kvant_step_entry entries[] = {make<kvant_step_entry>(), make<kvant_step_entry>()};
  entries[0].sequence = child;
  entries[0].append = 14;
  entries[1].sequence = second;
  entries[1].append = 17;
  auto plan = make<kvant_step_args>();
  plan.entry_count = 2;
  plan.entries = entries;
  kvant_step* step = nullptr;
  for (int i = 0; i < 3; ++i) {
    abi_test::check_error(api().step_plan(watched.cache, &plan, &step), KVANT_ERROR_RESOURCE_EXHAUSTED, "step_plan", "pages");
    CHECK(step == nullptr);
    CHECK((state_of(watched) == before));
  }
  // What does fit goes on.
  CHECK(Step{}.run(watched.cache, child, 14, nullptr).code == 0);
  CHECK(Step{}.run(watched.cache, second, 16, nullptr).code == 0);
  abi_test::check_error(api().step_plan(watched.cache, &plan, &step), KVANT_ERROR_RESOURCE_EXHAUSTED, "step_plan", "pages");
  api().cache_destroy(watched.cache);
}
