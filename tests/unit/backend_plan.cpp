// DevicePlan and quirks: decisions for made-up devices.
#include <algorithm>

#include "backend_snapshots.hpp"
#include "quirks.hpp"

using namespace kvant;
using namespace kvant::test;

namespace {

bool enables(const DevicePlan& plan, std::string_view extension) {
  return std::find(plan.extensions.begin(), plan.extensions.end(), extension) != plan.extensions.end();
}
bool acts(const DevicePlan& plan, std::string_view quirk) {
  return std::find(plan.quirks.begin(), plan.quirks.end(), quirk) != plan.quirks.end();
}
constexpr std::uint64_t kMiB = 1 << 20;

}  // namespace

TEST_SUITE("backend plan") {
  TEST_CASE("what each device is used for") {
    struct Expected {
      const char* name;
      std::uint32_t tier;
      DeviceCaps caps;  // subgroup, fp16, int_dot, coopmat, coopmat2, timeline
      std::uint64_t slab, binding;
      bool timestamps, require_subgroup_size;
    };
    const Expected expected[] = {
        {"lavapipe", 2, {true, true, true, false, false, true}, 1024 * kMiB, 128 * kMiB, true, true},
        {"swiftshader", 0, {true, false, true, false, false, true}, 1024 * kMiB, 1024 * kMiB, true, true},
        {"adreno_640", 0, {false, false, false, false, false, false}, 1024 * kMiB, 512 * kMiB, true, false},
        {"mali_g52", 1, {false, true, false, false, false, true}, 1024 * kMiB, 256 * kMiB, false, false},
        {"powervr_ge8320", 1, {false, true, false, false, false, false}, 1024 * kMiB, 128 * kMiB, true, false},
        {"nvidia_h200", 4, {true, true, true, true, true, true}, 1024 * kMiB, 1024 * kMiB, true, true},
        {"rdna3_radv", 4, {true, true, true, true, false, true}, 1024 * kMiB, 1024 * kMiB, true, true},
        {"amd_windows_rdna2", 0, {true, false, true, false, false, true}, 1024 * kMiB, 1024 * kMiB, true, true},
        {"intel_windows_a770", 1, {false, true, true, true, false, true}, 1024 * kMiB, 1024 * kMiB - 256, true, true},
    };
    CHECK(std::size(expected) == std::size(kSnapshotNames));
    for (const Expected& e : expected) {
      CAPTURE(e.name);
      const DevicePlan plan = plan_for(e.name);
      CHECK(plan.usable());
      CHECK(plan.tier == e.tier);
      CHECK(plan.caps.subgroup == e.caps.subgroup);
      CHECK(plan.caps.fp16 == e.caps.fp16);
      CHECK(plan.caps.int_dot == e.caps.int_dot);
      CHECK(plan.caps.coopmat == e.caps.coopmat);
      CHECK(plan.caps.coopmat2 == e.caps.coopmat2);
      CHECK(plan.caps.timeline == e.caps.timeline);
      CHECK(plan.max_slab_bytes == e.slab);
      CHECK(plan.max_binding_bytes == e.binding);
      CHECK(plan.timestamps == e.timestamps);
      CHECK(plan.require_subgroup_size == e.require_subgroup_size);
      CHECK(plan.subgroup_size == (e.caps.subgroup ? plan.snapshot.subgroup_size : 0));
      CHECK(plan.binding_alignment >= plan.snapshot.storage_alignment);
      CHECK(plan.binding_alignment >= 16);
      CHECK(plan.parallel_workgroups >= 2);
      // What is enabled is what is used, and only what the device lists.
      CHECK(plan.features.fp16 == plan.caps.fp16);
      CHECK(plan.features.timeline == plan.caps.timeline);
      for (const std::string& extension : plan.extensions) CHECK(plan.snapshot.has_extension(extension));
    }
  }

  TEST_CASE("extensions are enabled only where the version lacks the feature") {
    CHECK(enables(plan_for("adreno_640", "-adreno_fp16_without_storage16"), "VK_KHR_shader_float16_int8"));
    CHECK(enables(plan_for("mali_g52"), "VK_KHR_timeline_semaphore"));
    CHECK_FALSE(enables(plan_for("nvidia_h200"), "VK_KHR_timeline_semaphore"));
    CHECK(enables(plan_for("nvidia_h200"), "VK_KHR_cooperative_matrix"));
    DeviceSnapshot portable = load_snapshot("mali_g52");
    portable.extensions.emplace_back("VK_KHR_portability_subset");
    CHECK(enables(plan_for(portable), "VK_KHR_portability_subset"));
    // A feature whose extension is hidden cannot be used.
    DeviceSnapshot hidden = load_snapshot("mali_g52");
    std::erase(hidden.extensions, "VK_KHR_timeline_semaphore");
    CHECK_FALSE(plan_for(hidden).caps.timeline);
  }

  TEST_CASE("a compute queue without graphics is preferred") {
    CHECK(plan_for("nvidia_h200").queue_family == 2);
    CHECK(plan_for("rdna3_radv").queue_family == 1);
    CHECK(plan_for("lavapipe").queue_family == 0);
    DeviceSnapshot no_compute = load_snapshot("lavapipe");
    no_compute.queue_families[0].flags = queue_graphics;
    const DevicePlan plan = plan_for(no_compute);
    REQUIRE(plan.rejected.size() == 1);
    CHECK(plan.rejected[0].find("compute") != std::string::npos);
  }

  TEST_CASE("devices below the floor are rejected with every reason") {
    DeviceSnapshot weak = load_snapshot("powervr_ge8320");
    weak.api_version = make_api_version(1, 0);
    weak.max_shared_bytes = 8192;
    weak.max_storage_buffers = 4;
    weak.max_push_bytes = 64;
    weak.max_invocations = 128;
    weak.max_local_size[0] = 128;
    weak.max_groups = {0, 8, 0};
    const DevicePlan plan = plan_for(weak);
    CHECK_FALSE(plan.usable());
    REQUIRE(plan.rejected.size() == 9);
    const auto choice = choose_device({plan});
    REQUIRE_FALSE(choice.ok());
    CHECK(choice.status().code() == StatusCode::unavailable);
    for (const char* part : {"PowerVR", "8192", "(4)", "(64)", "(128)", "1.0.0"})
      CHECK_MESSAGE(choice.status().message().find(part) != std::string::npos, part);
    CHECK(choose_device({}).status().code() == StatusCode::unavailable);
  }

  TEST_CASE("a device without memory may compile but not run") {
    DeviceSnapshot null_device = load_snapshot("rdna3_radv");
    null_device.heaps.clear();
    null_device.memory_types.clear();
    const DevicePlan plan = plan_for(null_device);
    CHECK_FALSE(plan.usable());
    CHECK(plan.compile_only);
    null_device.max_shared_bytes = 1024;
    CHECK_FALSE(plan_for(null_device).compile_only);
  }

  TEST_CASE("the best device is discrete, then integrated, virtual, CPU, then first") {
    const DevicePlan cpu = plan_for("lavapipe"), phone = plan_for("mali_g52"), card = plan_for("rdna3_radv");
    DevicePlan broken = plan_for("nvidia_h200");
    broken.rejected.emplace_back("made up");
    CHECK(choose_device({cpu, phone, card}).value() == 2);
    CHECK(choose_device({cpu, phone}).value() == 1);
    CHECK(choose_device({broken, cpu}).value() == 1);
    CHECK(choose_device({card, card}).value() == 0);
  }

  TEST_CASE("a subgroup size that cannot be known is not used") {
    DeviceSnapshot device = load_snapshot("intel_windows_a770");
    const std::string off = "-intel_windows_shuffle_crash";
    CHECK(plan_for(device, off).caps.subgroup);
    device.subgroup_size_control = false;
    CHECK_FALSE(plan_for(device, off).caps.subgroup);
    device.subgroup_min_size = device.subgroup_max_size = device.subgroup_size;
    CHECK(plan_for(device, off).caps.subgroup);
  }

  TEST_CASE("needs follow the capabilities") {
    CHECK(satisfied_needs({}) == kernel_needs_none);
    CHECK(satisfied_needs({true, false, true, false, false, false}) == (kernel_needs_subgroup | kernel_needs_int_dot));
    CHECK(satisfied_needs({false, true, false, true, true, true}) ==
          (kernel_needs_fp16 | kernel_needs_coopmat | kernel_needs_coopmat2));
    const DevicePlan floor = plan_for("adreno_640");
    CHECK(kernel_available(KernelId::copy, floor) == !kernel_info(KernelId::copy).spirv.empty());
    CHECK_FALSE(kernel_available(KernelId::attend_decode_sg, floor));
  }

  TEST_CASE("recommended features are one JSON object") {
    const std::string text = recommended_features_json();
    CHECK(text.find("\"timelineSemaphore\"") != std::string::npos);
    CHECK(text.find("\"VK_EXT_subgroup_size_control\", \"VK_EXT_subgroup_size_control\"") == std::string::npos);
    CHECK(text.front() == '{');
    CHECK(text.back() == '}');
  }
}

TEST_SUITE("backend quirks") {
  TEST_CASE("rows are unique and explained") {
    for (std::size_t i = 0; i < quirks().size(); ++i) {
      const Quirk& row = quirks()[i];
      CAPTURE(row.name);
      CHECK(row.id == i + 1);
      CHECK(row.why.size() > 20);
      CHECK(row.url.starts_with("https://"));
      CHECK_FALSE(row.driver_range.empty());
      for (std::size_t j = 0; j < i; ++j) CHECK(quirks()[j].name != row.name);
    }
  }

  TEST_CASE("rows apply to their devices and to no other") {
    CHECK(plan_for("nvidia_h200").quirks.empty());
    CHECK(plan_for("rdna3_radv").quirks.empty());
    CHECK(plan_for("lavapipe").quirks.empty());
    CHECK(plan_for("swiftshader").quirks.empty());
    CHECK(plan_for("mali_g52").quirks.empty());
    const DevicePlan amd = plan_for("amd_windows_rdna2");
    CHECK(acts(amd, "amd_phantom_coopmat"));
    CHECK(acts(amd, "amd_fp16_shuffle"));
    CHECK(acts(plan_for("adreno_640"), "adreno_subgroup_pipelines"));
    DeviceSnapshot lavapipe = load_snapshot("lavapipe");  // at 512 and 1024 bits
    for (const std::uint32_t size : {16u, 32u}) {
      lavapipe.subgroup_size = lavapipe.subgroup_min_size = lavapipe.subgroup_max_size = size;
      CHECK(acts(plan_for(lavapipe), "llvmpipe_wide_vectors") == (size > 16));
      CHECK(plan_for(lavapipe).caps.subgroup == (size <= 16));
    }
    CHECK(acts(plan_for("adreno_640"), "adreno_fp16_without_storage16"));

    DeviceSnapshot intel = load_snapshot("intel_windows_a770");
    CHECK(acts(plan_for(intel), "intel_windows_shuffle_crash"));
    for (const std::uint32_t build : {8508U, 8861U}) {
      intel.driver_version = 101U << 14 | build;
      CHECK(plan_for(intel).caps.subgroup);
    }
    DeviceSnapshot turing = load_snapshot("nvidia_h200");
    turing.device_id = 0x1F08;
    CHECK(acts(plan_for(turing), "nvidia_turing_coopmat"));
    CHECK_FALSE(plan_for(turing).caps.coopmat2);
    DeviceSnapshot mac = load_snapshot("rdna3_radv");
    mac.driver_id = 14;
    CHECK_FALSE(plan_for(mac).caps.subgroup);
  }

  TEST_CASE("every row can be forced either way") {
    for (const Quirk& row : quirks()) {
      const std::string name(row.name);
      CAPTURE(name);
      for (const char* device : kSnapshotNames) {
        CHECK(acts(plan_for(device, "+" + name), name));
        CHECK_FALSE(acts(plan_for(device, "-" + name), name));
      }
    }
    CHECK_FALSE(plan_for("nvidia_h200", "+no_timeline").caps.timeline);
    CHECK_FALSE(plan_for("nvidia_h200", "+no_timeline").features.timeline);
    CHECK_FALSE(plan_for("nvidia_h200", " +no_timestamps , +no_pipeline_blob").timestamps);
    CHECK_FALSE(plan_for("nvidia_h200", "+no_timestamps,+no_pipeline_blob,").use_pipeline_blob);
    CHECK(plan_for("nvidia_h200").caps.coopmat);
    CHECK_FALSE(plan_for("nvidia_h200", "+no_coopmat").caps.coopmat);
    CHECK_FALSE(plan_for("nvidia_h200", "+no_coopmat").caps.coopmat2);
    CHECK(plan_for("amd_windows_rdna2", "-amd_fp16_shuffle,-amd_phantom_coopmat").tier == 4);
  }

  TEST_CASE("a wrong name or sign is refused") {
    const DeviceSnapshot device = load_snapshot("lavapipe");
    CHECK(make_device_plan(device, "+no_such").status().message().find("no_such") != std::string::npos);
    CHECK(make_device_plan(device, "no_timeline").status().message().find("+ or -") != std::string::npos);
    CHECK(make_device_plan(device, "+no_timeline,+").status().code() == StatusCode::invalid_argument);
    CHECK(make_device_plan(device, ",").status().code() == StatusCode::invalid_argument);
    const std::string message = make_device_plan(device, "+" + std::string(100000, 'x')).status().message();
    CHECK(message.size() < 1000);
    for (const Quirk& quirk : quirks()) CHECK(message.find(quirk.name) != std::string::npos);
  }
}
