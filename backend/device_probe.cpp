#include "device_probe.hpp"

#include <algorithm>
#include <cmath>
#include <thread>

#include "feature_chain.hpp"

namespace kvant {
namespace {

void read_extensions(const InstanceFunctions& vk, VkPhysicalDevice device, DeviceSnapshot& s) {
  std::uint32_t count = 0;
  if (vk.vkEnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr) != VK_SUCCESS) return;
  std::vector<VkExtensionProperties> properties(count);
  const VkResult result = vk.vkEnumerateDeviceExtensionProperties(device, nullptr, &count, properties.data());
  if (result != VK_SUCCESS && result != VK_INCOMPLETE) return;
  properties.resize(count);
  for (const auto& property : properties) s.extensions.emplace_back(property.extensionName);
  std::sort(s.extensions.begin(), s.extensions.end());
}

void read_limits(const VkPhysicalDeviceLimits& limits, DeviceSnapshot& s) {
  s.max_binding_bytes = limits.maxStorageBufferRange;
  s.max_allocations = limits.maxMemoryAllocationCount;
  s.max_shared_bytes = limits.maxComputeSharedMemorySize;
  s.max_invocations = limits.maxComputeWorkGroupInvocations;
  std::copy_n(limits.maxComputeWorkGroupSize, 3, s.max_local_size.begin());
  std::copy_n(limits.maxComputeWorkGroupCount, 3, s.max_groups.begin());
  s.max_push_bytes = limits.maxPushConstantsSize;
  s.max_storage_buffers = std::min(limits.maxPerStageDescriptorStorageBuffers, limits.maxDescriptorSetStorageBuffers);
  s.storage_alignment = static_cast<std::uint32_t>(limits.minStorageBufferOffsetAlignment);
  s.copy_alignment = static_cast<std::uint32_t>(limits.optimalBufferCopyOffsetAlignment);
  s.non_coherent_atom = limits.nonCoherentAtomSize;
  s.timestamp_period =
      std::isfinite(limits.timestampPeriod) ? limits.timestampPeriod : 0.0F;  // a null driver divides by 0
}

void read_memory_and_queues(const InstanceFunctions& vk, VkPhysicalDevice device, DeviceSnapshot& s) {
  VkPhysicalDeviceMemoryProperties memory{};
  vk.vkGetPhysicalDeviceMemoryProperties(device, &memory);
  for (std::uint32_t i = 0; i < memory.memoryHeapCount; ++i) {
    s.heaps.push_back(
        {memory.memoryHeaps[i].size, (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) != 0});
  }
  for (std::uint32_t i = 0; i < memory.memoryTypeCount; ++i) {
    s.memory_types.push_back({memory.memoryTypes[i].propertyFlags, memory.memoryTypes[i].heapIndex});
  }
  std::uint32_t count = 0;
  vk.vkGetPhysicalDeviceQueueFamilyProperties(device, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  vk.vkGetPhysicalDeviceQueueFamilyProperties(device, &count, families.data());
  for (const auto& family : families)
    s.queue_families.push_back({family.queueFlags, family.queueCount, family.timestampValidBits});
}

void read_coopmat_shapes(const InstanceFunctions& vk, VkPhysicalDevice device, DeviceSnapshot& s) {
  if (!s.coopmat || vk.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR == nullptr) return;
  std::uint32_t count = 0;
  if (vk.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &count, nullptr) != VK_SUCCESS) return;
  VkCooperativeMatrixPropertiesKHR empty{};
  empty.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
  std::vector<VkCooperativeMatrixPropertiesKHR> shapes(count, empty);
  if (vk.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &count, shapes.data()) != VK_SUCCESS) return;
  for (const auto& shape : shapes) {
    s.coopmat_shapes.push_back({shape.MSize, shape.NSize, shape.KSize, static_cast<std::uint32_t>(shape.AType),
                                static_cast<std::uint32_t>(shape.BType), static_cast<std::uint32_t>(shape.CType),
                                static_cast<std::uint32_t>(shape.ResultType), static_cast<std::uint32_t>(shape.scope)});
  }
}

}  // namespace

DeviceSnapshot probe_device(const InstanceFunctions& vk, VkPhysicalDevice device, std::uint32_t instance_version) {
  DeviceSnapshot s;
  VkPhysicalDeviceProperties base{};
  vk.vkGetPhysicalDeviceProperties(device, &base);
  s.name = base.deviceName;
  s.type =
      base.deviceType <= VK_PHYSICAL_DEVICE_TYPE_CPU ? static_cast<DeviceType>(base.deviceType) : DeviceType::other;
  s.vendor_id = base.vendorID;
  s.device_id = base.deviceID;
  s.driver_version = base.driverVersion;
  s.api_version = std::min(base.apiVersion, instance_version);
  std::copy_n(base.pipelineCacheUUID, VK_UUID_SIZE, s.pipeline_cache_uuid.begin());
  read_limits(base.limits, s);
  read_extensions(vk, device, s);
  read_memory_and_queues(vk, device, s);
  const auto offers = [&](std::uint32_t core_minor, const char* extension) {
    return (core_minor != 0 && s.api_version >= make_api_version(1, core_minor)) || s.has_extension(extension);
  };

  VkPhysicalDeviceProperties2 root{};
  root.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  const auto link = [&root](auto& properties, VkStructureType type) {
    properties.sType = type;
    properties.pNext = root.pNext;
    root.pNext = &properties;
  };
  VkPhysicalDeviceIDProperties id{};
  VkPhysicalDeviceMaintenance3Properties maintenance3{};
  VkPhysicalDeviceMaintenance4Properties maintenance4{};
  VkPhysicalDeviceSubgroupProperties subgroup{};
  VkPhysicalDeviceDriverProperties driver{};
  VkPhysicalDeviceFloatControlsProperties float_controls{};
  VkPhysicalDeviceShaderIntegerDotProductProperties int_dot{};
  VkPhysicalDeviceSubgroupSizeControlProperties size_control{};
  VkPhysicalDeviceShaderSMBuiltinsPropertiesNV sm{};
  VkPhysicalDeviceShaderCorePropertiesAMD amd{};
  VkPhysicalDeviceShaderCoreBuiltinsPropertiesARM arm{};
  const bool core_1_1 = s.api_version >= VK_API_VERSION_1_1;
  if (core_1_1) {
    link(id, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES);
    link(maintenance3, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES);
    link(subgroup, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES);
  }
  if (offers(3, VK_KHR_MAINTENANCE_4_EXTENSION_NAME))
    link(maintenance4, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES);
  if (offers(2, VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME))
    link(driver, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES);
  if (offers(2, VK_KHR_SHADER_FLOAT_CONTROLS_EXTENSION_NAME))
    link(float_controls, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FLOAT_CONTROLS_PROPERTIES);
  if (offers(3, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME))
    link(int_dot, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES);
  if (offers(3, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME))
    link(size_control, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES);
  if (offers(0, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME))
    link(sm, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV);
  if (offers(0, VK_AMD_SHADER_CORE_PROPERTIES_EXTENSION_NAME))
    link(amd, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD);
  if (offers(0, VK_ARM_SHADER_CORE_BUILTINS_EXTENSION_NAME))
    link(arm, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_BUILTINS_PROPERTIES_ARM);
  vk.vkGetPhysicalDeviceProperties2(device, &root);

  if (core_1_1) {
    std::copy_n(id.deviceUUID, VK_UUID_SIZE, s.device_uuid.begin());
    std::copy_n(id.driverUUID, VK_UUID_SIZE, s.driver_uuid.begin());
    s.max_allocation_bytes = maintenance3.maxMemoryAllocationSize;
    s.subgroup_size = subgroup.subgroupSize;
    s.subgroup_ops = subgroup.supportedOperations;
    s.subgroup_in_compute = (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
  }
  s.max_buffer_bytes = maintenance4.maxBufferSize != 0 ? maintenance4.maxBufferSize : s.max_allocation_bytes;
  s.driver_id = static_cast<std::uint32_t>(driver.driverID);
  s.driver_name = driver.driverName;
  s.driver_info = driver.driverInfo;
  s.fp16_rte = float_controls.shaderRoundingModeRTEFloat16 != 0;
  s.fp16_denorm_preserve = float_controls.shaderDenormPreserveFloat16 != 0;
  s.int_dot_accelerated = int_dot.integerDotProduct4x8BitPackedSignedAccelerated != 0;
  s.int_dot_mixed_accelerated = int_dot.integerDotProduct4x8BitPackedMixedSignednessAccelerated != 0;
  s.subgroup_min_size = size_control.minSubgroupSize != 0 ? size_control.minSubgroupSize : s.subgroup_size;
  s.subgroup_max_size = size_control.maxSubgroupSize != 0 ? size_control.maxSubgroupSize : s.subgroup_size;
  s.max_workgroup_subgroups = size_control.maxComputeWorkgroupSubgroups;
  s.compute_units = std::max({sm.shaderSMCount, arm.shaderCoreCount,
                              amd.shaderEngineCount * amd.shaderArraysPerEngineCount * amd.computeUnitsPerShaderArray});
  if (s.type == DeviceType::cpu) s.compute_units = std::max(1U, std::thread::hardware_concurrency());

  FeatureChain features;
  FeatureChain::link_for_query(features, s);
  vk.vkGetPhysicalDeviceFeatures2(device, &features.root);
  read_feature_chain(&features.root, s);
  const bool size_control_in_compute = (size_control.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
  s.subgroup_size_control = s.subgroup_size_control && size_control_in_compute;
  s.push_descriptor = s.has_extension(VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
  s.memory_budget = s.has_extension(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
  read_coopmat_shapes(vk, device, s);
  return s;
}

}  // namespace kvant
