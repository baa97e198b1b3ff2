#include "feature_chain.hpp"

#include <algorithm>

namespace kvant {
namespace {

// A struct may be used when its extension is there or its version of Vulkan made it core.
bool offers(const DeviceSnapshot& device, std::uint32_t core_minor, std::string_view extension) {
  if (core_minor != 0 && device.api_version >= make_api_version(1, core_minor)) return true;
  return device.has_extension(extension);
}

const VkBaseInStructure* next_of(const VkBaseInStructure* s) { return s->pNext; }

}  // namespace

template <typename T>
T& FeatureChain::link(T& feature) {
  feature.pNext = root.pNext;
  root.pNext = &feature;
  return feature;
}

void FeatureChain::link_for_query(FeatureChain& chain, const DeviceSnapshot& device) {
  if (offers(device, 2, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME)) chain.link(chain.fp16_int8_);
  if (offers(device, 2, VK_KHR_8BIT_STORAGE_EXTENSION_NAME)) chain.link(chain.storage8_);
  if (offers(device, 1, VK_KHR_16BIT_STORAGE_EXTENSION_NAME)) chain.link(chain.storage16_);
  if (offers(device, 2, VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME)) chain.link(chain.timeline_);
  if (offers(device, 3, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME)) chain.link(chain.int_dot_);
  if (offers(device, 3, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) chain.link(chain.subgroup_size_);
  if (offers(device, 2, VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME)) chain.link(chain.address_);
  if (offers(device, 2, VK_EXT_HOST_QUERY_RESET_EXTENSION_NAME)) chain.link(chain.host_query_reset_);
  if (offers(device, 2, VK_KHR_VULKAN_MEMORY_MODEL_EXTENSION_NAME)) chain.link(chain.memory_model_);
  if (offers(device, 0, VK_EXT_PIPELINE_ROBUSTNESS_EXTENSION_NAME)) chain.link(chain.pipeline_robustness_);
  if (offers(device, 0, VK_EXT_ROBUSTNESS_2_EXTENSION_NAME)) chain.link(chain.robustness2_);
  if (offers(device, 0, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME)) chain.link(chain.statistics_);
  if (offers(device, 0, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) chain.link(chain.coopmat_);
  if (offers(device, 0, VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME)) chain.link(chain.coopmat2_);
}

void FeatureChain::link_for_creation(FeatureChain& chain, const DevicePlan& plan) {
  const DeviceFeatures& features = plan.features;
  if (features.fp16) chain.link(chain.fp16_int8_).shaderFloat16 = VK_TRUE;
  if (features.timeline) chain.link(chain.timeline_).timelineSemaphore = VK_TRUE;
  if (features.int_dot) chain.link(chain.int_dot_).shaderIntegerDotProduct = VK_TRUE;
  if (features.subgroup_size_control) {
    auto& control = chain.link(chain.subgroup_size_);
    control.subgroupSizeControl = VK_TRUE;
    control.computeFullSubgroups = features.compute_full_subgroups ? VK_TRUE : VK_FALSE;
  }
  if (features.memory_model) {
    auto& model = chain.link(chain.memory_model_);
    model.vulkanMemoryModel = VK_TRUE;
    model.vulkanMemoryModelDeviceScope = VK_TRUE;  // with the model enabled, atomics of all modules need it
  }
  if (features.pipeline_statistics) chain.link(chain.statistics_).pipelineExecutableInfo = VK_TRUE;
  if (features.coopmat) chain.link(chain.coopmat_).cooperativeMatrix = VK_TRUE;
  if (features.coopmat2) {
    auto& matrix = chain.link(chain.coopmat2_);
    matrix.cooperativeMatrixReductions = VK_TRUE;
    matrix.cooperativeMatrixConversions = VK_TRUE;
    matrix.cooperativeMatrixPerElementOperations = VK_TRUE;
    matrix.cooperativeMatrixTensorAddressing = VK_TRUE;
    matrix.cooperativeMatrixBlockLoads = VK_TRUE;
  }
}

void read_feature_chain(const void* chain, DeviceSnapshot& s) {
  s.fp16 = s.int8 = s.int16 = s.int64 = s.storage8 = s.storage16 = false;
  s.timeline = s.int_dot = s.subgroup_size_control = s.compute_full_subgroups = false;
  s.buffer_device_address = s.robust_buffer_access = s.robustness2 = s.pipeline_robustness = false;
  s.host_query_reset = s.pipeline_statistics = s.coopmat = s.coopmat2 = false;
  bool memory_model = false;

  for (auto* link = static_cast<const VkBaseInStructure*>(chain); link != nullptr; link = next_of(link)) {
    const void* p = link;
    // Our own declarations of young structs have numbers outside the enum of old headers, hence the plain integer.
    const auto type = static_cast<std::int64_t>(link->sType);
    if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2) {
      const auto& f = static_cast<const VkPhysicalDeviceFeatures2*>(p)->features;
      s.int16 = f.shaderInt16 != 0;
      s.int64 = f.shaderInt64 != 0;
      s.robust_buffer_access = f.robustBufferAccess != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES) {
      s.storage16 = static_cast<const VkPhysicalDeviceVulkan11Features*>(p)->storageBuffer16BitAccess != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES) {
      const auto& f = *static_cast<const VkPhysicalDeviceVulkan12Features*>(p);
      s.fp16 = f.shaderFloat16 != 0;
      s.int8 = f.shaderInt8 != 0;
      s.storage8 = f.storageBuffer8BitAccess != 0;
      s.timeline = f.timelineSemaphore != 0;
      s.buffer_device_address = f.bufferDeviceAddress != 0;
      s.host_query_reset = f.hostQueryReset != 0;
      memory_model = f.vulkanMemoryModel != 0 && f.vulkanMemoryModelDeviceScope != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES) {
      const auto& f = *static_cast<const VkPhysicalDeviceVulkan13Features*>(p);
      s.int_dot = f.shaderIntegerDotProduct != 0;
      s.subgroup_size_control = f.subgroupSizeControl != 0;
      s.compute_full_subgroups = f.computeFullSubgroups != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES) {
      const auto& f = *static_cast<const VkPhysicalDeviceShaderFloat16Int8Features*>(p);
      s.fp16 = f.shaderFloat16 != 0;
      s.int8 = f.shaderInt8 != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES) {
      s.storage8 = static_cast<const VkPhysicalDevice8BitStorageFeatures*>(p)->storageBuffer8BitAccess != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES) {
      s.storage16 = static_cast<const VkPhysicalDevice16BitStorageFeatures*>(p)->storageBuffer16BitAccess != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES) {
      s.timeline = static_cast<const VkPhysicalDeviceTimelineSemaphoreFeatures*>(p)->timelineSemaphore != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES) {
      s.int_dot = static_cast<const VkPhysicalDeviceShaderIntegerDotProductFeatures*>(p)->shaderIntegerDotProduct != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES) {
      const auto& f = *static_cast<const VkPhysicalDeviceSubgroupSizeControlFeatures*>(p);
      s.subgroup_size_control = f.subgroupSizeControl != 0;
      s.compute_full_subgroups = f.computeFullSubgroups != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES) {
      s.buffer_device_address =
          static_cast<const VkPhysicalDeviceBufferDeviceAddressFeatures*>(p)->bufferDeviceAddress != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_HOST_QUERY_RESET_FEATURES) {
      s.host_query_reset = static_cast<const VkPhysicalDeviceHostQueryResetFeatures*>(p)->hostQueryReset != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES) {
      const auto& f = *static_cast<const VkPhysicalDeviceVulkanMemoryModelFeatures*>(p);
      memory_model = f.vulkanMemoryModel != 0 && f.vulkanMemoryModelDeviceScope != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_ROBUSTNESS_FEATURES_EXT) {
      s.pipeline_robustness =
          static_cast<const VkPhysicalDevicePipelineRobustnessFeaturesEXT*>(p)->pipelineRobustness != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT) {
      s.robustness2 = static_cast<const VkPhysicalDeviceRobustness2FeaturesEXT*>(p)->robustBufferAccess2 != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR) {
      s.pipeline_statistics =
          static_cast<const VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR*>(p)->pipelineExecutableInfo != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR) {
      s.coopmat = static_cast<const VkPhysicalDeviceCooperativeMatrixFeaturesKHR*>(p)->cooperativeMatrix != 0;
    } else if (type == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV) {
      const auto& f = *static_cast<const VkPhysicalDeviceCooperativeMatrix2FeaturesNV*>(p);
      s.coopmat2 = f.cooperativeMatrixReductions != 0 && f.cooperativeMatrixConversions != 0 &&
                   f.cooperativeMatrixPerElementOperations != 0 && f.cooperativeMatrixTensorAddressing != 0 &&
                   f.cooperativeMatrixBlockLoads != 0;
    }
  }
  // Cooperative-matrix SPIR-V declares the Vulkan memory model; one without the other is of no use. Nor is the model without
  // its device scope, which the atomics of append have (VUID-RuntimeSpirv-vulkanMemoryModel-06265).
  s.coopmat = s.coopmat && memory_model;
  s.coopmat2 = s.coopmat2 && s.coopmat;
}

void restrict_to_enabled(DeviceSnapshot& s, const void* enabled_features,
                         const std::vector<std::string>& enabled_extensions) {
  const DeviceSnapshot offered = s;
  read_feature_chain(enabled_features, s);
  std::erase_if(s.extensions, [&](const std::string& name) {
    return std::find(enabled_extensions.begin(), enabled_extensions.end(), name) == enabled_extensions.end();
  });
  // A chain may claim more than the device has; believe the device.
  s.fp16 &= offered.fp16;
  s.timeline &= offered.timeline;
  s.int_dot &= offered.int_dot;
  s.int_dot_accelerated &= s.int_dot;
  s.int_dot_mixed_accelerated &= s.int_dot;
  s.subgroup_size_control &= offered.subgroup_size_control;
  s.compute_full_subgroups &= offered.compute_full_subgroups;
  s.pipeline_statistics &= offered.pipeline_statistics;
  s.coopmat &= offered.coopmat;
  s.coopmat2 &= offered.coopmat2;
  if (!s.coopmat) s.coopmat_shapes.clear();
}

}  // namespace kvant
