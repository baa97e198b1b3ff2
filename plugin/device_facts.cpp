// A device as the ABI tells it: the plain fields, and one JSON object of snapshot, plan, modules and quirks.
#include "json_writer.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

struct NeedName {
  std::uint32_t bit;
  std::string_view name;
};
constexpr NeedName kNeedNames[] = {{kernel_needs_subgroup, "subgroup operations"},
                                   {kernel_needs_fp16, "16-bit floating-point arithmetic"},
                                   {kernel_needs_int_dot, "8-bit integer dot products"},
                                   {kernel_needs_coopmat, "cooperative matrices"},
                                   {kernel_needs_coopmat2, "cooperative matrices, second extension"}};

// Why the device cannot run a module; empty if it can.
std::string module_objection(const KernelInfo& kernel, KernelId id, const DevicePlan& plan) {
  if (kernel.spirv.empty()) return "this build's shader compiler could not make it";
  std::string lacking;
  const std::uint32_t missing = kernel.needs & ~satisfied_needs(plan.caps);
  for (const NeedName& need : kNeedNames)
    if ((missing & need.bit) != 0) lacking += (lacking.empty() ? "the device lacks " : ", ") + std::string(need.name);
  if (lacking.empty() && !kernel_available(id, plan)) lacking = "the plan rules it out";
  return lacking;
}

template <typename T>
void write_list(JsonWriter& json, std::string_view key, const std::vector<T>& texts) {
  json.key(key);
  json.begin_array();
  for (const T& text : texts) json.value(text);
  json.end_array();
}

void write_modules(JsonWriter& json, const DevicePlan& plan) {
  json.begin_array();
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(KernelId::count); ++i) {
    const auto id = static_cast<KernelId>(i);
    const KernelInfo& kernel = kernel_info(id);
    const std::string objection = module_objection(kernel, id, plan);
    json.begin_object();
    json.member("name", kernel.name);
    json.member("available", objection.empty());
    if (!objection.empty()) json.member("reason", objection);
    json.end_object();
  }
  json.end_array();
}

void write_capabilities(JsonWriter& json, const DeviceCaps& caps) {
  json.begin_object();
  json.member("subgroup", caps.subgroup);
  json.member("fp16", caps.fp16);
  json.member("int_dot", caps.int_dot);
  json.member("coopmat", caps.coopmat);
  json.member("coopmat2", caps.coopmat2);
  json.member("timeline", caps.timeline);
  json.end_object();
}

void write_plan(JsonWriter& json, const DevicePlan& plan) {
  json.begin_object();
  json.member("usable", plan.usable());
  write_list(json, "rejected", plan.rejected);
  json.member("tier", plan.tier);
  json.key("capabilities");
  write_capabilities(json, plan.caps);
  write_list(json, "extensions", plan.extensions);
  json.member("queue_family", plan.queue_family);
  json.member("timestamps", plan.timestamps);
  json.member("subgroup_size", plan.subgroup_size);
  json.member("require_subgroup_size", plan.require_subgroup_size);
  json.member("max_slab_bytes", plan.max_slab_bytes);
  json.member("max_binding_bytes", plan.max_binding_bytes);
  json.member("binding_alignment", plan.binding_alignment);
  json.member("parallel_workgroups", plan.parallel_workgroups);
  json.member("pipeline_blob", plan.use_pipeline_blob);
  json.end_object();
}

std::string driver_words(const DeviceSnapshot& snapshot) {
  std::string words = snapshot.driver_name;
  if (!snapshot.driver_info.empty()) words += (words.empty() ? "" : " ") + snapshot.driver_info;
  return words.empty() ? "driver version " + std::to_string(snapshot.driver_version) : words;
}

}  // namespace

DeviceFacts describe_plan(const DevicePlan& plan) {
  const DeviceSnapshot& snapshot = plan.snapshot;
  DeviceFacts facts;
  facts.name = snapshot.name;
  facts.driver = driver_words(snapshot);
  facts.type = static_cast<std::uint32_t>(snapshot.type);
  facts.vendor_id = snapshot.vendor_id;
  facts.device_id = snapshot.device_id;
  facts.api_version = snapshot.api_version;
  facts.tier = plan.tier;
  for (const MemoryHeap& heap : snapshot.heaps)
    if (heap.device_local && heap.size > facts.memory_size) facts.memory_size = heap.size;
  facts.usable = plan.usable();
  for (const std::string& reason : plan.rejected) facts.reasons += (facts.reasons.empty() ? "" : "; ") + reason;

  JsonWriter json(facts.json);
  json.begin_object();
  json.key("snapshot");
  write_snapshot(json, snapshot);
  json.key("plan");
  write_plan(json, plan);
  json.key("modules");
  write_modules(json, plan);
  write_list(json, "quirks", plan.quirks);
  json.end_object();
  return facts;
}

kvant_device_info device_info_values(const DeviceFacts& facts) {
  kvant_device_info values{};
  values.name = facts.name.c_str();
  values.driver = facts.driver.c_str();
  values.type = facts.type;
  values.vendor_id = facts.vendor_id;
  values.device_id = facts.device_id;
  values.api_version = facts.api_version;
  values.memory_size = facts.memory_size;
  values.tier = facts.tier;
  values.usable = facts.usable ? 1 : 0;
  values.reasons = facts.reasons.c_str();
  values.json = facts.json.c_str();
  return values;
}

}  // namespace kvant::abi
