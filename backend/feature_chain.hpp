// Vulkan feature structs: the chain to query or enable them, and the snapshot flags that a chain (ours or an engine's)
// means.
#pragma once

#include "device_plan.hpp"
#include "device_snapshot.hpp"
#include "vk_api.hpp"

namespace kvant {

// Feature structs linked into one chain; addresses matter, so it is neither copied nor moved.
class FeatureChain {
 public:
  // All structs that may be queried on a device of this version with these extensions.
  static void link_for_query(FeatureChain& chain, const DeviceSnapshot& device);
  // Only what the plan enables, with its bits set.
  static void link_for_creation(FeatureChain& chain, const DevicePlan& plan);

  FeatureChain() = default;
  FeatureChain(const FeatureChain&) = delete;
  FeatureChain& operator=(const FeatureChain&) = delete;

  VkPhysicalDeviceFeatures2 root{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, nullptr, {}};

 private:
  template <typename T>
  T& link(T& feature);

  VkPhysicalDeviceShaderFloat16Int8Features fp16_int8_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES,
                                                       nullptr, 0, 0};
  VkPhysicalDevice8BitStorageFeatures storage8_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES, nullptr, 0, 0,
                                                0};
  VkPhysicalDevice16BitStorageFeatures storage16_{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES, nullptr, 0, 0, 0, 0};
  VkPhysicalDeviceTimelineSemaphoreFeatures timeline_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
                                                      nullptr, 0};
  VkPhysicalDeviceShaderIntegerDotProductFeatures int_dot_{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES, nullptr, 0};
  VkPhysicalDeviceSubgroupSizeControlFeatures subgroup_size_{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, nullptr, 0, 0};
  VkPhysicalDeviceBufferDeviceAddressFeatures address_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES,
                                                       nullptr, 0, 0, 0};
  VkPhysicalDeviceHostQueryResetFeatures host_query_reset_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_HOST_QUERY_RESET_FEATURES,
                                                           nullptr, 0};
  VkPhysicalDeviceVulkanMemoryModelFeatures memory_model_{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, nullptr, 0, 0, 0};
  VkPhysicalDevicePipelineRobustnessFeaturesEXT pipeline_robustness_{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_ROBUSTNESS_FEATURES_EXT, nullptr, 0};
  VkPhysicalDeviceRobustness2FeaturesEXT robustness2_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT,
                                                      nullptr, 0, 0, 0};
  VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR statistics_{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR, nullptr, 0};
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR coopmat_{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, nullptr, 0, 0};
  VkPhysicalDeviceCooperativeMatrix2FeaturesNV coopmat2_{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV, nullptr, 0, 0, 0, 0, 0, 0, 0};
};

// Sets the snapshot's feature flags to what the chain says; `chain` is a VkPhysicalDeviceFeatures2 or null. Flags that
// no struct of the chain speaks of become false.
void read_feature_chain(const void* chain, DeviceSnapshot& snapshot);

// Clears the flags of `snapshot` that the engine did not enable when it created its device.
void restrict_to_enabled(DeviceSnapshot& snapshot, const void* enabled_features,
                         const std::vector<std::string>& enabled_extensions);

}  // namespace kvant
