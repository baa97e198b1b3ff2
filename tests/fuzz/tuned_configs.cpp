// Files of tuned configs: any text, or configs of the input's choice. What a call is given keeps the kernels' rules on the device, whatever
// the file says.
#include <algorithm>

#include "fuzz_input.hpp"
#include "tuned_configs.hpp"

namespace {

using namespace kvant;

DevicePlan device_of(fuzz::FuzzInput& in) {
  DevicePlan plan;
  plan.snapshot.type = in.one_in(2) ? DeviceType::cpu : DeviceType::discrete;
  plan.snapshot.max_shared_bytes = 49152;
  plan.snapshot.max_invocations = 1024;
  plan.snapshot.max_local_size = {1024, 1024, 64};
  plan.snapshot.max_workgroup_subgroups = 32;
  plan.snapshot.subgroup_min_size = plan.snapshot.subgroup_max_size = plan.snapshot.subgroup_size = plan.subgroup_size = 32;
  plan.snapshot.coopmat_shapes = {{16, 16, 16, 0, 0, 1, 1, 3}};
  plan.caps.subgroup = plan.caps.fp16 = plan.caps.int_dot = plan.caps.coopmat = true;
  plan.parallel_workgroups = 64;
  return plan;
}

AttendShape shape_of(fuzz::FuzzInput& in) {
  AttendShape shape;
  shape.format_k = in.below(19);
  shape.format_v = in.below(19);
  shape.head_dim_k = 8 * (1 + in.below(72));
  shape.head_dim_v = 8 * (1 + in.below(72));
  shape.group = 1 + in.below(64);
  shape.kv_heads = 1 + in.below(64);
  shape.max_queries = 1 + in.below(64);
  shape.total_queries = shape.max_queries;
  shape.max_kv_len = shape.total_kv_len = std::uint64_t{in.u8()} << in.below(32);
  shape.page_tokens = 16u << in.below(3);
  shape.scored = in.one_in(4);
  return shape;
}

std::uint32_t number(fuzz::FuzzInput& in) { return static_cast<std::uint32_t>(in.magnitude()); }

TunedConfigs configs_of(fuzz::FuzzInput& in, const AttendShape& shape, const DevicePlan& plan) {
  TunedConfigs configs;
  TuningKey key = tuning_key(shape);
  TunedConfig tuned;
  tuned.config = choose_attend_config(shape, plan);
  AttendConfig& config = tuned.config;
  if (in.one_in(2)) config.kernel = static_cast<KernelId>(in.below(static_cast<std::uint32_t>(KernelId::count)));
  if (in.one_in(2)) config.local_size = number(in);
  if (in.one_in(2)) config.subgroup_size = number(in);
  if (in.one_in(2)) config.heads_per_tile = number(in);
  if (in.one_in(2)) config.queries_per_item = number(in);
  if (in.one_in(2)) config.kv_per_item = number(in);
  for (std::uint32_t& value : config.tune)
    if (in.one_in(2)) value = number(in);
  tuned.workgroups = number(in);
  if (in.one_in(4)) key.group = number(in);
  configs.set(key, tuned);
  return configs;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::FuzzInput in(data, size);
  const std::uint8_t mode = in.u8();
  const DevicePlan plan = device_of(in);
  const AttendShape shape = shape_of(in);
  std::string text;
  if ((mode & 1) == 0) {
    text = in.text(in.left());
  } else {
    text = encode_tuned(configs_of(in, shape, plan), plan.snapshot, "shaders");
    if ((mode & 2) != 0 && !text.empty()) text[in.u16() % text.size()] = static_cast<char>(in.u8());
  }
  const TunedLoad load = decode_tuned(text, plan.snapshot, "shaders");
  KVANT_FUZZ_CHECK(load.outcome == BlobOutcome::hit || load.configs.size() == 0);
  if (const auto config = load.configs.find(shape, plan)) {
    KVANT_FUZZ_CHECK(attend_config_valid(*config, shape, plan));
    KVANT_FUZZ_CHECK(config->queries_per_item <= shape.max_queries);
  }
  if (load.outcome != BlobOutcome::hit) return 0;
  const std::string again = encode_tuned(load.configs, plan.snapshot, "shaders");
  const TunedLoad second = decode_tuned(again, plan.snapshot, "shaders");
  KVANT_FUZZ_CHECK(second.outcome == BlobOutcome::hit && encode_tuned(second.configs, plan.snapshot, "shaders") == again);
  return 0;
}
