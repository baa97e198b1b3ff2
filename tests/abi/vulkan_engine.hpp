// An engine with a Vulkan device of its own, for the tests of the borrowed-device extension: instance with the validation layer,
// device, queue, one mapped buffer, one command buffer. It links nothing: the loader is opened at run time.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include <kvant/kvant_ext_vulkan.h>

namespace abi_test {

// What the engine enables of what its device offers, and how it says so.
struct EngineFeatures {
  bool timeline = true, fp16 = false, storage16 = false, storage8 = false, int_dot = false, subgroup_size = false, memory_model = false;
  bool int16 = false, robust_access = false;
  bool collected = false;   // in VkPhysicalDeviceVulkan11Features and ...12Features instead of a struct each
  bool say_nothing = false; // kvant is given NULL instead of the chain
};

class VulkanEngine {
 public:
  // Empty: it stands; else why there is no engine (no loader, no driver, no compute queue).
  std::string start(VkDeviceSize buffer_bytes, const EngineFeatures& wanted = {});
  // Those of the wanted features that the device has and the engine enabled.
  const EngineFeatures& enabled() const { return enabled_; }
  ~VulkanEngine();

  kvant_vulkan_device_args import_args();
  bool validated() const { return validated_; }
  std::vector<std::string> validation_messages();

  float* floats(VkDeviceSize offset) const { return reinterpret_cast<float*>(mapped_ + offset); }
  std::uint16_t* halves(VkDeviceSize offset) const { return reinterpret_cast<std::uint16_t*>(mapped_ + offset); }
  std::uint64_t buffer() const { return reinterpret_cast<std::uint64_t>(buffer_); }

  VkDevice device() const { return device_; }
  template <typename F>
  F device_function(const char* name) const {
    return reinterpret_cast<F>(get_device_(device_, name));
  }

  VkCommandBuffer begin();
  // Ends with a barrier from compute to the host, submits to the queue and waits for its fence.
  bool submit_and_wait(VkCommandBuffer commands);
  bool wait_timeline(std::uint64_t semaphore, std::uint64_t value);

  std::atomic<int> locks{0}, unlocks{0};
  void (*inside_lock)(void*) = nullptr;  // called while kvant holds the queue
  void* inside_lock_data = nullptr;

 private:
  template <typename F>
  F instance_function(const char* name) const {
    return reinterpret_cast<F>(get_instance_(instance_, name));
  }
  std::string create_instance();
  std::string create_device();
  void choose_features();
  std::string create_buffer(VkDeviceSize bytes);

  void* loader_ = nullptr;
  PFN_vkGetInstanceProcAddr get_instance_ = nullptr;
  PFN_vkGetDeviceProcAddr get_device_ = nullptr;
  VkInstance instance_ = VK_NULL_HANDLE;
  VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
  VkPhysicalDevice physical_ = VK_NULL_HANDLE;
  VkDevice device_ = VK_NULL_HANDLE;
  VkQueue queue_ = VK_NULL_HANDLE;
  std::uint32_t family_ = 0;
  EngineFeatures wanted_, enabled_;
  VkPhysicalDeviceTimelineSemaphoreFeatures timeline_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES, nullptr, 0};
  VkPhysicalDeviceShaderFloat16Int8Features fp16_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES, nullptr, 0, 0};
  VkPhysicalDevice16BitStorageFeatures storage16_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES, nullptr, 0, 0, 0, 0};
  VkPhysicalDevice8BitStorageFeatures storage8_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES, nullptr, 0, 0, 0};
  VkPhysicalDeviceVulkanMemoryModelFeatures model_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, nullptr, 0, 0, 0};
  VkPhysicalDeviceShaderIntegerDotProductFeatures int_dot_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES, nullptr, 0};
  VkPhysicalDeviceSubgroupSizeControlFeatures subgroup_size_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, nullptr, 0, 0};
  VkPhysicalDeviceVulkan11Features core11_{};
  VkPhysicalDeviceVulkan12Features core12_{};
  VkPhysicalDeviceFeatures2 features_{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, nullptr, {}};
  std::vector<const char*> extensions_;
  VkBuffer buffer_ = VK_NULL_HANDLE;
  VkDeviceMemory memory_ = VK_NULL_HANDLE;
  unsigned char* mapped_ = nullptr;
  VkCommandPool pool_ = VK_NULL_HANDLE;
  VkFence fence_ = VK_NULL_HANDLE;
  bool validated_ = false;
  std::mutex queue_mutex_, messages_mutex_;
  std::vector<std::string> messages_;
};

}  // namespace abi_test
