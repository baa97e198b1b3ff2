// Engines that enable only some of what their device offers: nothing at all, one feature at a time, all of them, in either kind of
// struct, or without telling. kvant takes what it was shown and no more; results stay right; the validation layer is silent.
#include <cmath>
#include <set>

#include <nlohmann/json.hpp>

#include "library.hpp"
#include "vulkan_engine.hpp"

using namespace abi_test;

namespace {

using Json = nlohmann::json;

constexpr std::uint32_t kTokens = 20, kHeads = 2, kDim = 64, kQueryHeads = 4;

StepData fresh_step() {
  StepData data;
  data.k = random_floats(kTokens * kHeads * kDim, 1);
  data.v = random_floats(kTokens * kHeads * kDim, 2);
  data.q = random_floats(kQueryHeads * kDim, 3, 3.0F);
  data.q_heads = kQueryHeads;
  data.out.assign(kQueryHeads * kDim, 0.0F);
  return data;
}

StepData run_on(const Session& session) {
  kvant_cache* cache = make_cache(session, {.format_k = "q8_0", .format_v = "q4_0"});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data = fresh_step();
  run_step(cache, 1, sequence, kTokens, 1, data);
  api().cache_destroy(cache);
  return data;
}

struct Subset {
  const char* name;
  EngineFeatures features;
};

const std::vector<Subset> kSubsets = {
    {"nothing", {.timeline = false}},
    {"timeline semaphores", {}},
    {"nothing told of timeline semaphores and fp16", {.fp16 = true, .say_nothing = true}},
    {"fp16 without 16-bit storage", {.timeline = false, .fp16 = true}},
    {"16-bit storage without fp16", {.storage16 = true, .int16 = true}},
    {"8-bit and 16-bit storage, fp16", {.fp16 = true, .storage16 = true, .storage8 = true}},
    {"integer dot products", {.int_dot = true}},
    {"subgroup sizes", {.subgroup_size = true}},
    {"all of them", {.fp16 = true, .storage16 = true, .storage8 = true, .int_dot = true, .subgroup_size = true, .memory_model = true,
                     .int16 = true, .robust_access = true}},
    {"all of the core ones, in the structs of 1.1 and 1.2", {.fp16 = true, .storage16 = true, .storage8 = true, .memory_model = true,
                                                             .collected = true}},
};

// What the library must believe of the device.
void check_facts(const Session& session, const EngineFeatures& enabled) {
  auto info = make<kvant_device_info>();
  require_ok(api().device_describe(session.device, &info));
  const Json facts = Json::parse(info.json);
  const Json& seen = facts.at("snapshot");
  const bool told = !enabled.say_nothing;
  CHECK(seen.at("timeline") == (told && enabled.timeline));
  CHECK(seen.at("fp16") == (told && enabled.fp16));
  CHECK(seen.at("storage16") == (told && enabled.storage16));
  CHECK(seen.at("storage8") == (told && enabled.storage8));
  CHECK(seen.at("int_dot") == (told && enabled.int_dot));
  CHECK(seen.at("subgroup_size_control") == (told && enabled.subgroup_size));
  CHECK(seen.at("int16") == (told && enabled.int16));
  CHECK(seen.at("robust_buffer_access") == (told && enabled.robust_access));
  for (const char* never : {"coopmat", "coopmat2", "robustness2", "buffer_device_address", "pipeline_statistics"})
    CHECK(seen.at(never) == false);
  const Json& plan = facts.at("plan").at("capabilities");
  CHECK(plan.at("timeline") == (told && enabled.timeline));
  if (!enabled.fp16 || !told) CHECK(plan.at("fp16") == false);
  if (!enabled.int_dot || !told) CHECK(plan.at("int_dot") == false);
}

}  // namespace

TEST_CASE("borrowed: devices with only some features enabled") {
  Session& own = shared_session();
  if (!own.has_device()) return;
  const StepData expected = run_on(own);
  std::set<std::string> seen;  // capabilities and modules: what was run once need not run again
  std::size_t ran = 0;
  for (const Subset& subset : kSubsets) {
    CAPTURE(subset.name);
    VulkanEngine engine;
    const std::string missing = engine.start(4096, subset.features);
    REQUIRE_MESSAGE(missing.empty(), missing);
    Session session({.open_device = false});
    const auto* vulkan = static_cast<const kvant_ext_vulkan*>(api().get_extension(session.context, KVANT_EXT_VULKAN));
    REQUIRE(vulkan != nullptr);
    const kvant_vulkan_device_args args = engine.import_args();
    require_ok(vulkan->device_import(session.context, &args, &session.device));
    check_facts(session, engine.enabled());
    std::uint64_t semaphore = 7, value = 7;
    require_ok(vulkan->device_timeline(session.device, &semaphore, &value));
    CHECK((semaphore != 0) == (engine.enabled().timeline && !engine.enabled().say_nothing));

    auto info = make<kvant_device_info>();
    require_ok(api().device_describe(session.device, &info));
    const Json facts = Json::parse(info.json);
    const Json& plan = facts.at("plan");
    if (seen.insert(plan.at("capabilities").dump() + plan.at("require_subgroup_size").dump() + facts.at("modules").dump()).second) {
      const StepData got = run_on(session);
      double worst = 0.0;
      for (std::size_t i = 0; i < got.out.size(); ++i)
        worst = std::max(worst, std::fabs(static_cast<double>(got.out[i]) - static_cast<double>(expected.out[i])));
      CHECK(worst < 5e-3);  // fp16 arithmetic where that is enabled; q8_0 and q4_0 alike on all
      CHECK(engine.locks > 0);
      ++ran;
    }
    require_ok(vulkan->device_wait(session.device));
    api().device_close(std::exchange(session.device, nullptr));
    for (const std::string& message : engine.validation_messages()) FAIL_CHECK(message);
    CHECK(engine.locks == engine.unlocks);
    CHECK(session.take_blame().empty());
  }
  CHECK(ran >= 2);  // with and without timeline semaphores at least
}
