#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "backend_plans.hpp"
#include "tuned_configs.hpp"

using namespace kvant;

namespace {

AttendShape call_of(std::uint32_t queries, std::uint64_t keys) {
  AttendShape shape;
  shape.format_k = 4;
  shape.format_v = 3;
  shape.head_dim_k = shape.head_dim_v = 128;
  shape.group = 4;
  shape.kv_heads = 8;
  shape.max_queries = shape.total_queries = queries;
  shape.max_kv_len = shape.total_kv_len = keys;
  return shape;
}

// Of the configs that this device can run, the last one: not what tuning chooses.
TunedConfigs one_config(const AttendShape& shape, const DevicePlan& plan, std::uint32_t workgroups) {
  const auto all = all_attend_configs(shape, plan);
  REQUIRE(all.size() > 1);
  TunedConfigs configs;
  configs.set(tuning_key(shape), {all.back(), workgroups, 12.5, 20});
  return configs;
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const std::size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}

}  // namespace

TEST_CASE("tuned configs: a call finds what was measured for its kind, cut for its own length") {
  const DevicePlan plan = floor_device();
  const AttendShape shape = call_of(1, 4096);
  const TunedConfigs configs = one_config(shape, plan, 64);
  const auto found = configs.find(shape, plan);
  REQUIRE(found);
  CHECK(attend_config_valid(*found, shape, plan));
  AttendConfig expected = configs.all().begin()->second.config;
  cut_items(expected, shape, 64);
  CHECK(*found == expected);
  CHECK(*found != choose_attend_config(shape, plan));
  // The same kind with other lengths, other heads of K and V: found. Of another kind: not.
  for (const std::uint64_t keys : {1U, 100U, 1U << 20}) {
    const auto other = configs.find(call_of(1, keys), plan);
    REQUIRE(other);
    CHECK(attend_config_valid(*other, call_of(1, keys), plan));
  }
  CHECK_FALSE(configs.find(call_of(2, 4096), plan));
  CHECK_FALSE(configs.find(call_of(8, 4096), plan));
  for (const auto change : {+[](AttendShape& s) { s.format_k = 3; }, +[](AttendShape& s) { s.format_v = 4; }, +[](AttendShape& s) { s.head_dim_k = 64; },
                            +[](AttendShape& s) { s.head_dim_v = 64; }, +[](AttendShape& s) { s.group = 2; }, +[](AttendShape& s) { s.page_tokens = 32; }}) {
    AttendShape other = shape;
    change(other);
    CHECK_FALSE(configs.find(other, plan));
  }
}

TEST_CASE("tuned configs: kinds of calls by their queries, and no more queries an item than the call has") {
  CHECK(query_kind(1) == QueryKind::one);
  CHECK(query_kind(2) == QueryKind::few);
  CHECK(query_kind(8) == QueryKind::few);
  CHECK(query_kind(9) == QueryKind::many);
  const DevicePlan plan = cpu_device();
  AttendShape four = call_of(4, 1024);
  four.group = 1;
  TunedConfigs configs;
  AttendConfig config = choose_attend_config(four, plan);
  REQUIRE(config.queries_per_item == 4);
  configs.set(tuning_key(four), {config, 1, 1, 1});
  four.max_queries = 2;
  CHECK(configs.find(four, plan)->queries_per_item == 2);
}

TEST_CASE("tuned configs: what the device cannot run is passed over") {
  const AttendShape shape = call_of(1, 4096);
  const DevicePlan large = large_device(32, true);
  TunedConfigs configs;
  const AttendConfig chosen = choose_attend_config(shape, large);
  REQUIRE(chosen.kernel != choose_attend_config(shape, floor_device()).kernel);
  configs.set(tuning_key(shape), {chosen, 64, 1, 1});
  CHECK(configs.find(shape, large));
  CHECK_FALSE(configs.find(shape, floor_device()));
}

TEST_CASE("tuned configs: numbers whose products wrap are passed over") {
  const DevicePlan plan = floor_device();
  AttendShape shape = call_of(64, 4096);
  AttendConfig config;
  config.kernel = KernelId::attend_prefill_cm1;
  config.subgroup_size = 1;
  config.kv_per_item = 0;
  config.kv_split = 128;
  config.tune = {4, 4, 64, 4};
  for (const auto& [local_size, heads, queries] : {std::array<std::uint32_t, 3>{1u << 30, 1, 1}, {1u << 31, 1, 1}, {0xFFFFFFFFu, 1, 1}, {128, 2, 1u << 31},
                                                   {128, 4, 1u << 30}, {128, 0xFFFFFFFFu, 0xFFFFFFFFu}}) {
    config.local_size = local_size;
    config.heads_per_tile = heads;
    config.queries_per_item = queries;
    for (const KernelId kernel : {KernelId::attend_prefill_cm1, KernelId::attend_decode, KernelId::attend_decode_sg}) {
      config.kernel = kernel;
      CHECK_FALSE(attend_config_consistent(config, shape));
      TunedConfigs configs;
      configs.set(tuning_key(shape), {config, 1, 1, 1});
      CHECK_FALSE(configs.find(shape, plan));
    }
  }
}

TEST_CASE("tuned configs: a file holds all of it, of one device, driver and shader set") {
  const DevicePlan plan = floor_device();
  const AttendShape shape = call_of(64, 4096);
  const TunedConfigs configs = one_config(shape, plan, 7);
  const std::string text = encode_tuned(configs, plan.snapshot, "shaders");
  const TunedLoad load = decode_tuned(text, plan.snapshot, "shaders");
  CHECK(load.outcome == BlobOutcome::hit);
  REQUIRE(load.configs.size() == 1);
  const auto& [key, tuned] = *load.configs.all().begin();
  CHECK(key == tuning_key(shape));
  CHECK(tuned.workgroups == 7);
  CHECK(tuned.microseconds == 12.5);
  CHECK(tuned.default_microseconds == 20);
  CHECK(load.configs.find(shape, plan) == configs.find(shape, plan));
  CHECK(encode_tuned(load.configs, plan.snapshot, "shaders") == text);

  CHECK(decode_tuned(text, plan.snapshot, "others").outcome == BlobOutcome::other_shaders);
  for (const auto change : {+[](DeviceSnapshot& s) { ++s.vendor_id; }, +[](DeviceSnapshot& s) { ++s.device_id; }, +[](DeviceSnapshot& s) { ++s.driver_id; },
                            +[](DeviceSnapshot& s) { ++s.driver_version; }, +[](DeviceSnapshot& s) { s.pipeline_cache_uuid[15] ^= 1; }}) {
    DeviceSnapshot other = plan.snapshot;
    change(other);
    CHECK(decode_tuned(text, other, "shaders").outcome == BlobOutcome::other_device);
  }
  CHECK(decode_tuned(replaced(text, "\"version\": 1", "\"version\": 2"), plan.snapshot, "shaders").outcome == BlobOutcome::other_version);
}

TEST_CASE("tuned configs: a damaged file is a miss") {
  const DevicePlan plan = floor_device();
  const std::string text = encode_tuned(one_config(call_of(1, 4096), plan, 7), plan.snapshot, "shaders");
  const auto outcome = [&](const std::string& file) {
    const TunedLoad load = decode_tuned(file, plan.snapshot, "shaders");
    CHECK(load.configs.size() == 0);
    return load.outcome;
  };
  for (const std::string& bad : {std::string(), std::string("{}"), std::string("[1]"), std::string("7"), text.substr(0, text.size() / 2)})
    CHECK(outcome(bad) == BlobOutcome::corrupt);
  for (const auto& [what, by] : {std::pair{"\"workgroups\": 7", "\"workgroups\": 0"}, {"\"workgroups\": 7", "\"workgroups\": -7"}, {"\"workgroups\": 7", "\"workgroups\": 4294967296"},
                                 {"\"workgroups\": 7", "\"workgroups\": \"7\""}, {"\"workgroups\"", "\"work\""}, {"\"queries\": \"one\"", "\"queries\": \"two\""},
                                 {"\"format_k\": \"q4_0\"", "\"format_k\": \"q9_9\""}, {"\"kernel\": \"", "\"kernel\": \"no_"}, {"\"page_tokens\": 16", "\"page_tokens\": 0"},
                                 {"\"tune\": [", "\"tune\": [1,"}, {"\"tune\": [", "\"tune\": [], \"other\": ["}})
    CHECK(outcome(replaced(text, what, by)) == BlobOutcome::corrupt);
}

TEST_CASE("tuned configs: files on disk") {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("kvant-tuned-" + std::to_string(std::hash<std::string>()(__FILE__)));
  std::filesystem::remove_all(folder);
  const DevicePlan plan = floor_device();
  const std::string path = tuned_path(folder.string(), plan.snapshot);
  CHECK(path.ends_with(".tuned.json"));
  CHECK(load_tuned(path, plan.snapshot, "shaders").outcome == BlobOutcome::absent);
  const TunedConfigs configs = one_config(call_of(1, 4096), plan, 7);
  CHECK(save_tuned(path, configs, plan.snapshot, "shaders").ok());
  CHECK(load_tuned(path, plan.snapshot, "shaders").outcome == BlobOutcome::hit);
  CHECK(std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()) == 1);
  std::filesystem::resize_file(path, (1U << 20) + 1);
  CHECK(load_tuned(path, plan.snapshot, "shaders").outcome == BlobOutcome::not_a_blob);
  std::filesystem::remove_all(folder);
  std::ofstream(folder) << "in the way";
  const Status status = save_tuned(path, configs, plan.snapshot, "shaders");
  CHECK(status.code() == StatusCode::unavailable);
  CHECK(status.message().find("tuned config") != std::string::npos);
  std::filesystem::remove(folder);
}
