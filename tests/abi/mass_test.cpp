// Attention mass through the C ABI, against softmax in double: what is counted, when nothing is, what is refused, and
// counting in a command buffer of the engine's.
#include <kvant/kvant_ext_manager.h>

#include <cmath>
#include <numeric>

#include "cache_state.hpp"
#include "mass_model.hpp"
#include "vulkan_engine.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kAll = KVANT_MASS_ALL;

std::uint64_t length_of(kvant_cache* cache, kvant_sequence sequence) {
  std::uint64_t length = 0;
  require_ok(api().sequence_length(cache, sequence, &length));
  return length;
}

kvant_prune_args prune_args(std::uint64_t keep, std::uint32_t sinks = 0, std::uint32_t recent = 0) {
  auto args = make<kvant_prune_args>();
  args.keep_tokens = keep;
  args.sinks = sinks;
  args.recent = recent;
  return args;
}

}  // namespace

TEST_CASE("mass: what is added up is softmax in double, per layer and head") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "f32"}, {1, 40, "f16"}, {2, 96, "q8_0"}, {4, 32, "q4_0"}}, 256);
  const kvant_sequence other = counted.create(), sequence = counted.create();
  counted.step(other, 30, 30, KVANT_RUN_MASS);
  counted.step(sequence, 37, 37, KVANT_RUN_MASS);
  for (int i = 0; i < 5; ++i) counted.step(sequence, 1, 1, KVANT_RUN_MASS | (i % 2 != 0 ? KVANT_RUN_INVARIANT : 0));
  counted.step(sequence, 11, 3, KVANT_RUN_MASS);
  counted.step(sequence, 0, 4, KVANT_RUN_MASS | KVANT_RUN_NON_CAUSAL);
  for (const kvant_sequence one : {other, sequence}) {
    const std::uint64_t tokens = length_of(counted.cache, one);
    const double queries = one == other ? 30 : 37 + 5 + 3 + 4;
    for (const std::uint32_t layer : {0u, 1u, 2u, 3u, kAll})
      for (const std::uint32_t head : {0u, 1u, 3u, kAll}) {
        if (head != kAll && !counted.has_head(layer, head)) continue;
        CAPTURE(layer);
        CAPTURE(head);
        const std::vector<float> found = counted.masses(one, layer, head);
        const std::vector<double> expected = counted.expected(one, layer, head);
        for (std::uint64_t t = 0; t < tokens; ++t) CHECK(found[t] == doctest::Approx(expected[t]).epsilon(2e-4));
        CHECK(std::accumulate(found.begin(), found.end(), 0.0) == doctest::Approx(queries).epsilon(1e-4));
        // A range is a part of the whole.
        std::vector<float> part(9, -1.0F);
        require_ok(counted.manager.sequence_mass(counted.cache, one, layer, head, 13, 9, part.data()));
        CHECK(part == std::vector<float>(found.begin() + 13, found.begin() + 22));
      }
  }
}

TEST_CASE("mass: a sink logit takes its share, a sliding window's queries give theirs to what they see") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "f32"}, {2, 64, "f32", 20, 3}}, 256);
  const kvant_sequence sequence = counted.create();
  counted.step(sequence, 30, 30, KVANT_RUN_MASS);
  for (const std::uint32_t layer : {0u, 1u}) {
    const std::vector<float> found = counted.masses(sequence, layer, kAll);
    const std::vector<double> expected = counted.expected(sequence, layer, kAll);
    for (std::size_t t = 0; t < found.size(); ++t) CHECK(found[t] == doctest::Approx(expected[t]).epsilon(2e-4));
    CHECK(std::accumulate(found.begin(), found.end(), 0.0) == doctest::Approx(30.0).epsilon(1e-4));
  }
  require_ok(counted.manager.sequence_mass_clear(counted.cache, sequence));
  counted.forget(sequence);
  counted.sinks = {0.0F, 0.0F, 0.0F, 0.0F};
  counted.step(sequence, 1, 1, KVANT_RUN_MASS);
  const std::vector<float> found = counted.masses(sequence, 0, kAll);
  const double sum = std::accumulate(found.begin(), found.end(), 0.0);
  CHECK(sum < 0.999);
  CHECK(sum > 0.5);
  const std::vector<double> expected = counted.expected(sequence, 0, kAll);
  CHECK(sum == doctest::Approx(std::accumulate(expected.begin(), expected.end(), 0.0)).epsilon(2e-4));
}

TEST_CASE("mass: counted where it is asked for, cleared when it is asked for, and out is the same either way") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "q8_0"}, {2, 64, "f16"}}, 256);
  const kvant_sequence sequence = counted.create();
  counted.step(sequence, 40, 40, 0);
  for (const float mass : counted.masses(sequence, kAll, kAll)) CHECK(mass == 0.0F);
  counted.step(sequence, 3, 3, 0);
  counted.step(sequence, 0, 1, 0);
  const std::vector<float> plain = counted.last_out;
  counted.repeat(sequence, 0, 1, KVANT_RUN_MASS);
  CHECK(counted.last_out == plain);
  const std::vector<float> once = counted.masses(sequence, kAll, kAll);
  CHECK(std::accumulate(once.begin(), once.end(), 0.0) == doctest::Approx(1.0).epsilon(1e-4));
  counted.repeat(sequence, 0, 1, KVANT_RUN_MASS);
  const std::vector<float> twice = counted.masses(sequence, kAll, kAll);
  for (std::size_t t = 0; t < once.size(); ++t)
    CHECK(twice[t] == doctest::Approx(2.0 * static_cast<double>(once[t])).epsilon(1e-6));

  // A fork shares full pages, and with them the mass of their tokens; the open page is its own.
  kvant_sequence fork = 0;
  require_ok(api().sequence_fork(counted.cache, sequence, 43, &fork));
  CHECK(counted.masses(fork, kAll, kAll) == twice);
  require_ok(counted.manager.sequence_mass_clear(counted.cache, sequence));
  for (const float mass : counted.masses(sequence, kAll, kAll)) CHECK(mass == 0.0F);
  const std::vector<float> left = counted.masses(fork, kAll, kAll);
  for (std::size_t t = 0; t < left.size(); ++t) CHECK(left[t] == (t < 32 ? 0.0F : twice[t]));
}

TEST_CASE("mass: a cache that has no room for it refuses the flag, and nothing changes") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager_of(session);
  kvant_cache* cache = make_cache(session, {});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.k = random_floats(20 * 128, 1);
  data.v = random_floats(20 * 128, 2);
  run_step(cache, 1, sequence, 20, 0, data);
  const CacheState before = state_of(cache, {sequence}, 2, 64);

  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = entry.queries = 1;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &args, &step));
  data = StepData();
  data.k = random_floats(128, 3);
  data.v = random_floats(128, 4);
  data.q = random_floats(256, 5);
  data.q_heads = 4;
  data.out.assign(256, 7.0F);
  data.flags = KVANT_RUN_MASS;
  std::vector<kvant_tensor> tensors;
  kvant_run_args run = run_args_of(data, tensors);
  check_error(api().step_run(step, 0, &run), KVANT_ERROR_FAILED_PRECONDITION, "step_run", "counts no attention mass");
  CHECK(data.out == std::vector<float>(256, 7.0F));
  run.flags = KVANT_RUN_MASS << 1;
  check_error(api().step_run(step, 0, &run), KVANT_ERROR_INVALID_ARGUMENT, "step_run",
              "args.flags (0x8) have bits beyond 0x7");
  api().step_abort(step);
  CHECK(state_of(cache, {sequence}, 2, 64) == before);

  std::vector<float> mass(20, 5.0F);
  std::uint64_t count = 5;
  const kvant_prune_args prune = prune_args(68);
  check_error(m.sequence_mass(cache, sequence, 0, 0, 0, 20, mass.data()), KVANT_ERROR_FAILED_PRECONDITION,
              "sequence_mass", "created without KVANT_CACHE_MASS");
  check_error(m.sequence_mass_clear(cache, sequence), KVANT_ERROR_FAILED_PRECONDITION, "sequence_mass_clear",
              "created without KVANT_CACHE_MASS");
  check_error(m.sequence_prune(cache, sequence, &prune, nullptr, &count), KVANT_ERROR_FAILED_PRECONDITION,
              "sequence_prune", "created without KVANT_CACHE_MASS");
  CHECK(mass == std::vector<float>(20, 5.0F));
  CHECK(count == 5);
  api().cache_destroy(cache);
}

TEST_CASE("mass and prune: refusals") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "f16"}, {1, 64, "f16"}}, 256);
  const kvant_ext_manager& m = counted.manager;
  kvant_cache* cache = counted.cache;
  const kvant_sequence sequence = counted.create();
  counted.step(sequence, 100, 100, KVANT_RUN_MASS);
  const CacheState before = state_of(cache, {sequence}, 2, 64);
  const std::vector<float> mass_before = counted.masses(sequence, kAll, kAll);
  std::vector<float> out(100, 5.0F);
  const auto refused = [&](std::uint32_t layer, std::uint32_t head, std::uint64_t begin, std::uint64_t count,
                           const char* part) {
    check_error(m.sequence_mass(cache, sequence, layer, head, begin, count, out.data()), KVANT_ERROR_INVALID_ARGUMENT,
                "sequence_mass", part);
  };
  refused(2, 0, 0, 1, "layer (2) is not less than the cache's 2 layers");
  refused(0, 2, 0, 1, "kv_head (2) is neither KVANT_MASS_ALL nor less than the 2 KV heads of layer 0");
  refused(1, 1, 0, 1, "less than the 1 KV heads of layer 1");
  refused(kAll, 1, 0, 1, "less than the 1 KV heads of layer 1");
  refused(0, 0, 1, 100, "begin (1) for count (100) do not lie inside the sequence's 100 tokens");
  refused(0, 0, 101, 0, "begin (101)");
  refused(0, 0, 1, ~std::uint64_t{0}, "count (18446744073709551615)");
  refused(0, 0, ~std::uint64_t{0}, 2, "begin (18446744073709551615)");
  check_error(m.sequence_mass(cache, sequence, 0, 0, 0, 100, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "sequence_mass",
              "out is NULL");
  check_error(m.sequence_mass(nullptr, sequence, 0, 0, 0, 1, out.data()), KVANT_ERROR_INVALID_ARGUMENT, "sequence_mass",
              "cache is NULL");
  check_error(m.sequence_mass(cache, 0, 0, 0, 0, 1, out.data()), KVANT_ERROR_INVALID_ARGUMENT, "sequence_mass",
              "sequence");
  require_ok(m.sequence_mass(cache, sequence, 0, 0, 100, 0, nullptr));
  CHECK(out == std::vector<float>(100, 5.0F));
  check_error(m.sequence_mass_clear(nullptr, sequence), KVANT_ERROR_INVALID_ARGUMENT, "sequence_mass_clear",
              "cache is NULL");

  std::uint64_t count = 9;
  const auto not_pruned = [&](const kvant_prune_args& args, const char* part) {
    check_error(m.sequence_prune(cache, sequence, &args, nullptr, &count), KVANT_ERROR_INVALID_ARGUMENT,
                "sequence_prune", part);
  };
  not_pruned(prune_args(0), "keep_tokens (0) is less than the 4 sinks and 64 recent tokens");
  not_pruned(prune_args(67), "keep_tokens (67) is less than the 4 sinks and 64 recent tokens");
  not_pruned(prune_args(10, 8, 3), "keep_tokens (10) is less than the 8 sinks and 3 recent tokens");
  not_pruned(prune_args(10, ~0u, ~0u),
             "keep_tokens (10) is less than the 4294967295 sinks and 4294967295 recent tokens");
  kvant_prune_args args = prune_args(80);
  args.struct_size = 8;
  not_pruned(args, "args.struct_size (8)");
  args = prune_args(80);
  kvant_next unknown{sizeof(kvant_next), nullptr, 99, 0};
  args.next = &unknown;
  check_error(m.sequence_prune(cache, sequence, &args, nullptr, &count), KVANT_ERROR_UNIMPLEMENTED, "sequence_prune",
              "args.next: type (0x63)");
  args.next = nullptr;
  check_error(m.sequence_prune(cache, sequence, nullptr, nullptr, &count), KVANT_ERROR_INVALID_ARGUMENT,
              "sequence_prune", "args is NULL");
  check_error(m.sequence_prune(cache, sequence, &args, nullptr, nullptr), KVANT_ERROR_INVALID_ARGUMENT,
              "sequence_prune", "out_count is NULL");
  check_error(m.sequence_prune(nullptr, sequence, &args, nullptr, &count), KVANT_ERROR_INVALID_ARGUMENT,
              "sequence_prune", "cache is NULL");
  kvant_step* step = counted.plan(sequence, 1, 0);
  check_error(m.sequence_prune(cache, sequence, &args, nullptr, &count), KVANT_ERROR_FAILED_PRECONDITION,
              "sequence_prune", "a step of the cache is open");
  api().step_abort(step);
  CHECK(count == 9);
  CHECK(state_of(cache, {sequence}, 2, 64) == before);
  CHECK(counted.masses(sequence, kAll, kAll) == mass_before);

  // ALiBi is refused once places are not positions, and not before.
  counted.slopes = {0.1F, 0.2F, 0.3F, 0.4F};
  counted.step(sequence, 0, 1, 0);
  require_ok(m.sequence_prune(cache, sequence, &args, nullptr, &count));
  CHECK(count == 80);
  step = counted.plan(sequence, 0, 1);
  check_error(counted.run(step, 0, 0, 1, 0), KVANT_ERROR_FAILED_PRECONDITION, "step_run",
              "ALiBi counts the places between tokens");
  counted.slopes.clear();
  require_ok(counted.run(step, 0, 0, 1, 0));
  api().step_abort(step);
  kvant_sequence fork = 0;
  require_ok(api().sequence_fork(cache, sequence, 80, &fork));
  counted.slopes = {0.1F, 0.2F, 0.3F, 0.4F};
  step = counted.plan(fork, 0, 1);
  check_error(counted.run(step, 0, 0, 1, 0), KVANT_ERROR_FAILED_PRECONDITION, "step_run",
              "ALiBi counts the places between tokens");
  api().step_abort(step);

  // Handles that are not live.
  require_ok(api().sequence_destroy(cache, sequence));
  check_error(m.sequence_mass(cache, sequence, 0, 0, 0, 0, nullptr), KVANT_ERROR_NOT_FOUND, "sequence_mass",
              "sequence");
  check_error(m.sequence_mass_clear(cache, sequence), KVANT_ERROR_NOT_FOUND, "sequence_mass_clear", "sequence");
  check_error(m.sequence_prune(cache, sequence, &args, nullptr, &count), KVANT_ERROR_NOT_FOUND, "sequence_prune",
              "sequence");
  kvant_cache* gone = std::exchange(counted.cache, nullptr);
  api().cache_destroy(gone);
  check_error(m.sequence_mass(gone, fork, 0, 0, 0, 0, nullptr), KVANT_ERROR_NOT_FOUND, "sequence_mass", "cache");
  check_error(m.sequence_prune(gone, fork, &args, nullptr, &count), KVANT_ERROR_NOT_FOUND, "sequence_prune", "cache");

  // The engine's own pages have no sequences whose tokens could be counted.
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = 1;
  layer.head_dim_k = 32;
  auto cache_args = make<kvant_cache_args>();
  cache_args.layer_count = 1;
  cache_args.layers = &layer;
  cache_args.capacity_tokens = 64;
  cache_args.flags = KVANT_CACHE_MASS | KVANT_CACHE_EXTERNAL_PAGES;
  check_error(api().cache_create(session.device, &cache_args, &gone), KVANT_ERROR_INVALID_ARGUMENT, "cache_create",
              "args.flags (0x5) ask for KVANT_CACHE_MASS with KVANT_CACHE_EXTERNAL_PAGES");
  cache_args.flags = KVANT_CACHE_MASS << 1;
  check_error(api().cache_create(session.device, &cache_args, &gone), KVANT_ERROR_INVALID_ARGUMENT, "cache_create",
              "args.flags (0x8)");
}

TEST_CASE("mass: recorded into the engine's command buffer, without log-sum-exps of the engine's") {
  VulkanEngine engine;
  Session session({.open_device = false});
  const std::string missing = engine.start(1u << 20);
  if (!missing.empty()) {
    MESSAGE(missing);
    session.has_device();
    return;
  }
  const auto* vulkan = static_cast<const kvant_ext_vulkan*>(api().get_extension(session.context, KVANT_EXT_VULKAN));
  REQUIRE(vulkan != nullptr);
  const kvant_vulkan_device_args import = engine.import_args();
  require_ok(vulkan->device_import(session.context, &import, &session.device));
  {
    constexpr std::uint32_t kTokens = 40, kQueries = 6, kRow = 128, kQueryRow = 256;
    constexpr VkDeviceSize kAtK = 0, kAtV = 65536, kAtQ = 131072, kAtOut = 262144;
    MassCache counted(session, {{2, 64, "f32"}, {2, 64, "q8_0"}}, 256);
    const kvant_sequence sequence = counted.create();
    const std::vector<float> k = random_floats(kTokens * kRow, 1), v = random_floats(kTokens * kRow, 2);
    const std::vector<float> q = random_floats(kQueries * kQueryRow, 3, 3.0F);
    std::copy(k.begin(), k.end(), engine.floats(kAtK));
    std::copy(v.begin(), v.end(), engine.floats(kAtV));
    std::copy(q.begin(), q.end(), engine.floats(kAtQ));
    const auto place = [&](VkDeviceSize offset, std::size_t elements) {
      auto tensor = make<kvant_tensor>();
      tensor.buffer = engine.buffer();
      tensor.offset = offset;
      tensor.size = elements * sizeof(float);
      return tensor;
    };
    const kvant_tensor tk = place(kAtK, k.size()), tv = place(kAtV, v.size()), tq = place(kAtQ, q.size()),
                       out = place(kAtOut, q.size());
    auto run = make<kvant_run_args>();
    run.k = &tk, run.v = &tv, run.q = &tq, run.out = &out;
    run.q_heads = 4;
    run.flags = KVANT_RUN_MASS;
    const VkCommandBuffer commands = engine.begin();
    auto record = make<kvant_vulkan_record>();
    record.type = KVANT_NEXT_VULKAN_RECORD;
    record.command_buffer = commands;
    run.next = reinterpret_cast<const kvant_next*>(&record);
    kvant_step* step = counted.plan(sequence, kTokens, kQueries);
    require_ok(api().step_run(step, 0, &run));
    require_ok(api().step_run(step, 1, &run));
    CHECK(engine.locks == 0);
    REQUIRE(engine.submit_and_wait(commands));
    require_ok(api().step_commit(step));
    counted.remember(sequence, {k, k}, q, kTokens, kQueries, true);
    for (const std::uint32_t layer : {0u, 1u})
      for (const std::uint32_t head : {0u, 1u}) {
        const std::vector<float> found = counted.masses(sequence, layer, head);
        const std::vector<double> expected = counted.expected(sequence, layer, head);
        for (std::size_t t = 0; t < found.size(); ++t) CHECK(found[t] == doctest::Approx(expected[t]).epsilon(2e-4));
      }
  }
  api().device_close(std::exchange(session.device, nullptr));
  for (const std::string& message : engine.validation_messages()) FAIL_CHECK(message);
  CHECK(session.take_blame().empty());
}
