// Device: a VkDevice and one queue, owned or borrowed from an engine, with its function table and the lost flag.
// Everything in the backend that calls Vulkan on a device holds a reference to one.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "backend.hpp"
#include "vk_loader.hpp"

namespace kvant {

// The instance that devices come from. Shared, so that it outlives them.
struct InstanceHandle {
  VulkanLibrary library;
  VkInstance instance = VK_NULL_HANDLE;
  std::uint32_t api_version = 0;
  InstanceFunctions vk;
  VkDebugUtilsMessengerEXT messenger = VK_NULL_HANDLE;
  bool owned = true;
  InstanceOptions options;

  InstanceHandle() = default;
  InstanceHandle(const InstanceHandle&) = delete;
  InstanceHandle& operator=(const InstanceHandle&) = delete;
  ~InstanceHandle();
};

class Device {
 public:
  // A VkDevice of our own with the plan's features and extensions.
  static Result<std::unique_ptr<Device>> create(std::shared_ptr<InstanceHandle> instance, VkPhysicalDevice physical,
                                                const DevicePlan& plan);
  static Result<std::unique_ptr<Device>> borrow(std::shared_ptr<InstanceHandle> instance,
                                                const BorrowedDevice& borrowed);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  VkDevice handle() const { return handle_; }
  const DeviceFunctions& vk() const { return vk_; }
  const Log& log() const { return instance_->options.log; }
  std::uint32_t queue_family() const { return queue_family_; }
  bool validates() const { return instance_->options.validation; }

  // Submits under the engine's queue lock.
  VkResult submit(const VkSubmitInfo& info, VkFence fence);

  // Passes a result through and remembers a lost device.
  VkResult note(VkResult result);
  bool lost() const { return lost_.load(std::memory_order_relaxed); }
  Status lost_status() const { return {StatusCode::data_loss, "the Vulkan device was lost; its buffers are gone"}; }

 private:
  Device() = default;
  Status load_functions();

  std::shared_ptr<InstanceHandle> instance_;
  DeviceFunctions vk_;
  VkDevice handle_ = VK_NULL_HANDLE;
  VkQueue queue_ = VK_NULL_HANDLE;
  std::uint32_t queue_family_ = 0, queue_index_ = 0;
  bool owned_ = true;
  void (*lock_queue_)(void*, std::uint32_t, std::uint32_t) = nullptr;
  void (*unlock_queue_)(void*, std::uint32_t, std::uint32_t) = nullptr;
  void* lock_user_data_ = nullptr;
  std::atomic<bool> lost_{false};
};

}  // namespace kvant
