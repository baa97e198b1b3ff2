// Vulkan entry points as tables of our own, one per instance and one per device; no globals, no link-time loader.
#pragma once

#include "status.hpp"
#include "vk_api.hpp"

namespace kvant {

// Keeps libvulkan.so.1 open. Movable.
class VulkanLibrary {
 public:
  static Result<VulkanLibrary> open();
  VulkanLibrary() = default;
  VulkanLibrary(VulkanLibrary&& other) noexcept;
  VulkanLibrary& operator=(VulkanLibrary&& other) noexcept;
  ~VulkanLibrary();

  PFN_vkGetInstanceProcAddr get_instance_proc_addr() const { return get_instance_proc_addr_; }

 private:
  void* handle_ = nullptr;
  PFN_vkGetInstanceProcAddr get_instance_proc_addr_ = nullptr;
};

struct GlobalFunctions {
  PFN_vkEnumerateInstanceVersion vkEnumerateInstanceVersion = nullptr;  // null on a 1.0 loader
#define KVANT_VK_GLOBAL(name) PFN_##name name = nullptr;
#include "vk_functions.def"

  static Result<GlobalFunctions> load(PFN_vkGetInstanceProcAddr get);
};

struct InstanceFunctions {
#define KVANT_VK_INSTANCE(name, alias) PFN_##name name = nullptr;
#define KVANT_VK_INSTANCE_OPTIONAL(name, alias) PFN_##name name = nullptr;
#include "vk_functions.def"

  static Result<InstanceFunctions> load(PFN_vkGetInstanceProcAddr get, VkInstance instance);
};

struct DeviceFunctions {
#define KVANT_VK_DEVICE(name, alias) PFN_##name name = nullptr;
#define KVANT_VK_DEVICE_OPTIONAL(name, alias) PFN_##name name = nullptr;
#include "vk_functions.def"

  static Result<DeviceFunctions> load(PFN_vkGetDeviceProcAddr get, VkDevice device);
};

// "VK_ERROR_DEVICE_LOST".
const char* vk_result_name(VkResult result);
// A Status for a failed call: memory errors become resource_exhausted, a lost device data_loss, the rest internal.
// The sentence is "<what> failed: VK_...".
Status vk_status(VkResult result, const std::string& what);

}  // namespace kvant
