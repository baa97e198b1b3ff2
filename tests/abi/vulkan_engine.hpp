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

class VulkanEngine {
 public:
  // Empty: it stands; else why there is no engine (no loader, no driver, no compute queue).
  std::string start(VkDeviceSize buffer_bytes);
  ~VulkanEngine();

  kvant_vulkan_device_args import_args();
  bool validated() const { return validated_; }
  std::vector<std::string> validation_messages();

  float* floats(VkDeviceSize offset) const { return reinterpret_cast<float*>(mapped_ + offset); }
  std::uint16_t* halves(VkDeviceSize offset) const { return reinterpret_cast<std::uint16_t*>(mapped_ + offset); }
  std::uint64_t buffer() const { return reinterpret_cast<std::uint64_t>(buffer_); }

  VkCommandBuffer begin();
  // Ends with a barrier from compute to the host, submits to the queue and waits for its fence.
  bool submit_and_wait(VkCommandBuffer commands);
  bool wait_timeline(std::uint64_t semaphore, std::uint64_t value);

  std::atomic<int> locks{0}, unlocks{0};
  void (*inside_lock)(void*) = nullptr;  // called while kvant holds the queue
  void* inside_lock_data = nullptr;

 private:
  template <typename F>
  F device_function(const char* name) const {
    return reinterpret_cast<F>(get_device_(device_, name));
  }
  template <typename F>
  F instance_function(const char* name) const {
    return reinterpret_cast<F>(get_instance_(instance_, name));
  }
  std::string create_instance();
  std::string create_device();
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
  VkPhysicalDeviceTimelineSemaphoreFeatures timeline_{};
  VkPhysicalDeviceFeatures2 features_{};
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
