// The capability-override profiles of tests/profiles/: each narrows lavapipe's snapshot, in every key that it names,
// and leaves a device that the tier-0 modules run on.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "backend_snapshots.hpp"
#include "tuning.hpp"

using namespace kvant;
using namespace kvant::test;

namespace {

struct Profile {
  const char* name;
  std::uint32_t tier;  // at most; what the real device has and lavapipe can imitate
  bool subgroup, fp16, int_dot, timeline;
};

constexpr Profile kProfiles[] = {
    {"adreno_6xx", 2, true, true, false, false},
    {"adreno_7xx", 2, true, true, true, true},
    {"mali_g52", 1, false, true, false, true},
    {"mali_g57", 2, true, true, true, true},
    {"mali_g720", 2, true, true, true, true},
    {"powervr", 1, false, true, false, false},
    {"amd_windows", 2, true, true, true, true},
    {"intel_windows", 2, true, true, true, true},
    {"android_baseline", 0, false, false, false, false},
    {"apple_moltenvk", 1, false, true, true, true},
};

std::string read_profile(const std::string& name) {
  std::ifstream stream(std::string(KVANT_SOURCE_DIR) + "/tests/profiles/" + name + ".json");
  REQUIRE_MESSAGE(stream.good(), name);
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

DeviceSnapshot narrowed(const std::string& profile) {
  DeviceSnapshot device = load_snapshot("lavapipe");
  const Status status = narrow_snapshot(device, read_profile(profile));
  REQUIRE_MESSAGE(status.ok(), status.message());
  return device;
}

}  // namespace

TEST_SUITE("backend profiles") {
  TEST_CASE("each narrows lavapipe into a device that tier 0 runs on, with the capabilities of the real one") {
    for (const Profile& profile : kProfiles) {
      const std::string name = profile.name;
      CAPTURE(name);
      const DevicePlan plan = plan_for(narrowed(profile.name));
      CHECK_MESSAGE(plan.usable(), (plan.rejected.empty() ? "" : plan.rejected[0]));
      CHECK(plan.caps.subgroup == profile.subgroup);
      CHECK(plan.caps.fp16 == profile.fp16);
      CHECK(plan.caps.int_dot == profile.int_dot);
      CHECK(plan.caps.timeline == profile.timeline);
      CHECK(plan.tier == profile.tier);
      for (std::uint16_t i = 0; i < static_cast<std::uint16_t>(KernelId::count); ++i) {
        const auto kernel = static_cast<KernelId>(i);
        if (kernel_info(kernel).needs == 0) CHECK_MESSAGE(kernel_available(kernel, plan), kernel_info(kernel).name);
      }
      for (const std::uint32_t dim : {32u, 128u, 576u}) {
        AttendShape shape;
        shape.head_dim_k = shape.head_dim_v = dim;
        const AttendConfig config = choose_attend_config(shape, plan);
        CHECK(attend_config_valid(config, shape, plan));
      }
    }
  }

  TEST_CASE("every key of a profile changes something") {
    for (const Profile& profile : kProfiles) {
      const std::string name = profile.name;
      CAPTURE(name);
      const auto before = nlohmann::json::parse(snapshot_to_json(load_snapshot("lavapipe")));
      const auto after = nlohmann::json::parse(snapshot_to_json(narrowed(profile.name)));
      const auto keys = nlohmann::json::parse(read_profile(profile.name));
      CHECK(!keys.empty());
      for (const auto& [key, value] : keys.items()) {
        CAPTURE(key);
        CHECK(after[key] == value);
        CHECK(before[key] != value);
      }
    }
  }

  TEST_CASE("profiles and table are the same set") {
    std::set<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(std::string(KVANT_SOURCE_DIR) + "/tests/profiles"))
      if (entry.path().extension() == ".json") files.insert(entry.path().stem().string());
    std::set<std::string> table;
    for (const Profile& profile : kProfiles) table.insert(profile.name);
    CHECK(files == table);
    CHECK(table.size() == 10);
  }

  TEST_CASE("what the Android baseline really promises is below the floor, and the plan says by how much") {
    DeviceSnapshot device = narrowed("android_baseline");
    REQUIRE(narrow_snapshot(device,
                            R"({"max_invocations": 128, "max_local_size": [128, 128, 64], "max_storage_buffers": 4})")
                .ok());
    const DevicePlan plan = plan_for(device);
    REQUIRE(plan.rejected.size() == 3);
    CHECK(plan.rejected[0] == "storage buffers per set (4) is below 8");
    CHECK(plan.rejected[1] == "workgroup invocations (128) is below 256");
    CHECK(plan.rejected[2] == "workgroup size x (128) is below 256");
  }
}
