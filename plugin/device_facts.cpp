// A device as the ABI tells it: the plain fields, and one JSON object of snapshot, plan, modules and quirks.
#include <nlohmann/json.hpp>

#include "objects.hpp"

namespace kvant::abi {
namespace {

using Json = nlohmann::ordered_json;

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

Json modules_json(const DevicePlan& plan) {
  Json modules = Json::array();
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(KernelId::count); ++i) {
    const auto id = static_cast<KernelId>(i);
    const KernelInfo& kernel = kernel_info(id);
    const std::string objection = module_objection(kernel, id, plan);
    Json module = {{"name", kernel.name}, {"available", objection.empty()}};
    if (!objection.empty()) module["reason"] = objection;
    modules.push_back(std::move(module));
  }
  return modules;
}

Json plan_json(const DevicePlan& plan) {
  const DeviceCaps& caps = plan.caps;
  return {{"usable", plan.usable()},
          {"rejected", plan.rejected},
          {"tier", plan.tier},
          {"capabilities",
           {{"subgroup", caps.subgroup},
            {"fp16", caps.fp16},
            {"int_dot", caps.int_dot},
            {"coopmat", caps.coopmat},
            {"coopmat2", caps.coopmat2},
            {"timeline", caps.timeline}}},
          {"extensions", plan.extensions},
          {"queue_family", plan.queue_family},
          {"timestamps", plan.timestamps},
          {"subgroup_size", plan.subgroup_size},
          {"require_subgroup_size", plan.require_subgroup_size},
          {"max_slab_bytes", plan.max_slab_bytes},
          {"max_binding_bytes", plan.max_binding_bytes},
          {"binding_alignment", plan.binding_alignment},
          {"parallel_workgroups", plan.parallel_workgroups},
          {"pipeline_blob", plan.use_pipeline_blob}};
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

  Json json;
  json["snapshot"] = Json::parse(snapshot_to_json(snapshot));
  json["plan"] = plan_json(plan);
  json["modules"] = modules_json(plan);
  json["quirks"] = plan.quirks;
  // Names come from drivers; bytes that are not UTF-8 are replaced rather than thrown at.
  facts.json = json.dump(-1, ' ', false, Json::error_handler_t::replace);
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
