// DeviceSnapshot: JSON both ways, and narrowing by an override.
#include <set>

#include "backend_snapshots.hpp"
#include "device_fields.hpp"

using namespace kvant;
using namespace kvant::test;

namespace {

bool mentions(const Status& status, const std::string& text) {
  return !status.ok() && status.message().find(text) != std::string::npos;
}

}  // namespace

TEST_SUITE("backend snapshot") {
  TEST_CASE("every snapshot survives JSON") {
    for (const char* name : kSnapshotNames) {
      CAPTURE(name);
      const DeviceSnapshot snapshot = load_snapshot(name);
      const auto again = snapshot_from_json(snapshot_to_json(snapshot));
      REQUIRE(again.ok());
      CHECK(again.value() == snapshot);
      CHECK(!snapshot.name.empty());
      CHECK(snapshot.max_binding_bytes != 0);
    }
  }

  TEST_CASE("each field reaches JSON and comes back") {
    // Fields at their default would hide a missing one: give each a value of its own.
    DeviceSnapshot filled;
    std::uint32_t next = 1;
    std::set<std::string> keys;
    visit_snapshot_fields(filled, [&](const char* key, auto& field, NarrowRule) {
      CHECK(keys.insert(key).second);
      using T = std::remove_cvref_t<decltype(field)>;
      ++next;
      if constexpr (std::is_same_v<T, bool>)
        field = true;
      else if constexpr (std::is_same_v<T, std::string>)
        field = "text " + std::to_string(next);
      else if constexpr (std::is_same_v<T, DeviceType>)
        field = DeviceType::discrete;
      else if constexpr (std::is_same_v<T, float>)
        field = 0.1F;
      else if constexpr (std::is_same_v<T, std::uint64_t>)
        field = (1ULL << 63) + next;
      else if constexpr (std::is_same_v<T, std::uint32_t>)
        field = 0xFFFFFF00U + next;
      else if constexpr (std::is_same_v<T, std::array<std::uint32_t, 3>>)
        field = {next, 2 * next, 3 * next};
      else if constexpr (std::is_same_v<T, std::array<std::uint8_t, 16>>)
        field.fill(static_cast<std::uint8_t>(next));
      else if constexpr (std::is_same_v<T, std::vector<std::string>>)
        field = {"VK_a", "VK_b"};
      else if constexpr (std::is_same_v<T, std::vector<CoopmatShape>>)
        field = {{1, 2, 3, 4, 5, 6, 7, 8}};
      else if constexpr (std::is_same_v<T, std::vector<MemoryHeap>>)
        field = {{next, true}, {1, false}};
      else if constexpr (std::is_same_v<T, std::vector<MemoryType>>)
        field = {{7, 1}};
      else
        field = {{6, 1, 48}};
    });
    CHECK(keys.size() > 50);
    const auto again = snapshot_from_json(snapshot_to_json(filled));
    REQUIRE_MESSAGE(again.ok(), again.status().message());
    CHECK(again.value() == filled);
    visit_snapshot_fields(filled, [&](const char* key, auto& field, NarrowRule) {
      CAPTURE(key);
      auto kept = field;
      field = {};
      CHECK_FALSE(again.value() == filled);
      field = kept;
    });
  }

  TEST_CASE("bad JSON is refused by name") {
    CHECK(mentions(snapshot_from_json("[]").status(), "not a JSON object"));
    CHECK(mentions(snapshot_from_json("{\"fp16\": ").status(), "not a JSON object"));
    CHECK(mentions(snapshot_from_json("{\"fp32\": true}").status(), "\"fp32\""));
    CHECK(mentions(snapshot_from_json("{\"fp16\": 1}").status(), "\"fp16\""));
    CHECK(mentions(snapshot_from_json("{\"max_shared_bytes\": -1}").status(), "\"max_shared_bytes\""));
    CHECK(mentions(snapshot_from_json("{\"max_shared_bytes\": 4294967296}").status(), "32 bits"));
    CHECK(mentions(snapshot_from_json("{\"type\": \"quantum\"}").status(), "\"type\""));
    CHECK(mentions(snapshot_from_json("{\"device_uuid\": \"00zz\"}").status(), "\"device_uuid\""));
    CHECK(mentions(snapshot_from_json("{\"heaps\": [{\"size\": 1}]}").status(), "\"heaps\""));
    CHECK(mentions(snapshot_from_json("{\"max_groups\": [1, 2]}").status(), "\"max_groups\""));
  }

  TEST_CASE("an override narrows") {
    DeviceSnapshot device = load_snapshot("rdna3_radv");
    REQUIRE(narrow_snapshot(device,
                            R"json({"fp16": false, "subgroup_size": 32, "max_binding_bytes": 1048576, "subgroup_ops": 1,
        "extensions": ["VK_KHR_timeline_semaphore"], "max_local_size": [256, 1, 1], "storage_alignment": 256,
        "coopmat_shapes": [], "name": "AMD Radeon RX 7900 XTX (RADV NAVI31)", "int_dot": true})json")
                .ok());
    CHECK_FALSE(device.fp16);
    CHECK(device.subgroup_size == 32);
    CHECK(device.max_binding_bytes == 1048576);
    CHECK(device.extensions.size() == 1);
    CHECK(device.storage_alignment == 256);
    CHECK(device.int_dot);
  }

  TEST_CASE("an override never widens, and then changes nothing") {
    const DeviceSnapshot device = load_snapshot("swiftshader");
    const char* const attempts[][2] = {
        {R"({"fp16": true})", "\"fp16\""},
        {R"({"max_shared_bytes": 1048576})", "\"max_shared_bytes\""},
        {R"({"max_local_size": [64, 4096, 1]})", "\"max_local_size\""},
        {R"({"storage_alignment": 16})", "\"storage_alignment\""},
        {R"({"subgroup_ops": 255})", "\"subgroup_ops\""},
        {R"({"extensions": ["VK_KHR_cooperative_matrix"]})", "\"extensions\""},
        {R"({"coopmat_shapes": [[8, 8, 8, 0, 0, 0, 0, 3]]})", "\"coopmat_shapes\""},
        {R"({"name": "another"})", "\"name\""},
        {R"({"subgroup_size": 64})", "\"subgroup_size\""},
        {R"({"subgroup_size": 3})", "\"subgroup_size\""},
        {R"({"api_version": 4294967295})", "\"api_version\""},
        {R"({"heaps": []})", "\"heaps\""},
        {R"({"int8": "no"})", "\"int8\""},
        {R"({"fp61": false})", "\"fp61\""},
        {R"(fp16)", "JSON"},
    };
    for (const auto& [text, named] : attempts) {
      CAPTURE(text);
      DeviceSnapshot narrowed = device;
      const Status status = narrow_snapshot(narrowed, text);
      CHECK(status.code() == StatusCode::invalid_argument);
      CHECK(mentions(status, named));
      CHECK(narrowed == device);
    }
  }

  TEST_CASE("a subgroup size is only taken where the device can be asked for it") {
    DeviceSnapshot fixed = load_snapshot("adreno_640");
    CHECK(mentions(narrow_snapshot(fixed, R"({"subgroup_size": 32})"), "\"subgroup_size\""));
    CHECK(narrow_snapshot(fixed, R"({"subgroup_size": 64})").ok());
    DeviceSnapshot free_choice = load_snapshot("intel_windows_a770");
    CHECK(narrow_snapshot(free_choice, R"({"subgroup_size": 8})").ok());
    CHECK(mentions(narrow_snapshot(free_choice, R"({"subgroup_min_size": 16})"), "\"subgroup_size\" (8)"));
  }
}
