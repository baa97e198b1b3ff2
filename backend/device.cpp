#include "device.hpp"

#include "feature_chain.hpp"

namespace kvant {

InstanceHandle::~InstanceHandle() {
  if (!owned || instance == VK_NULL_HANDLE) return;
  if (messenger != VK_NULL_HANDLE) vk.vkDestroyDebugUtilsMessengerEXT(instance, messenger, nullptr);
  vk.vkDestroyInstance(instance, nullptr);
}

Result<std::unique_ptr<Device>> Device::create(std::shared_ptr<InstanceHandle> instance, VkPhysicalDevice physical,
                                               const DevicePlan& plan) {
  const float priority = 1.0F;
  VkDeviceQueueCreateInfo queue{};
  queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  queue.queueFamilyIndex = plan.queue_family;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;

  FeatureChain features;
  FeatureChain::link_for_creation(features, plan);
  std::vector<const char*> extensions;
  for (const std::string& extension : plan.extensions) extensions.push_back(extension.c_str());

  VkDeviceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = &features.root;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = static_cast<std::uint32_t>(extensions.size());
  info.ppEnabledExtensionNames = extensions.data();

  std::unique_ptr<Device> device(new Device);
  device->instance_ = std::move(instance);
  const VkResult result = device->instance_->vk.vkCreateDevice(physical, &info, nullptr, &device->handle_);
  if (result != VK_SUCCESS) return vk_status(result, "creating a Vulkan device on " + plan.snapshot.name);
  device->queue_family_ = plan.queue_family;
  KVANT_TRY(device->load_functions());
  return device;
}

Result<std::unique_ptr<Device>> Device::borrow(std::shared_ptr<InstanceHandle> instance,
                                               const BorrowedDevice& borrowed) {
  std::unique_ptr<Device> device(new Device);
  device->instance_ = std::move(instance);
  device->handle_ = static_cast<VkDevice>(borrowed.device);
  device->owned_ = false;
  device->queue_family_ = borrowed.queue_family;
  device->queue_index_ = borrowed.queue_index;
  device->lock_queue_ = borrowed.lock_queue;
  device->unlock_queue_ = borrowed.unlock_queue;
  device->lock_user_data_ = borrowed.user_data;
  KVANT_TRY(device->load_functions());
  return device;
}

Status Device::load_functions() {
  KVANT_ASSIGN(vk_, DeviceFunctions::load(instance_->vk.vkGetDeviceProcAddr, handle_));
  vk_.vkGetDeviceQueue(handle_, queue_family_, queue_index_, &queue_);
  return {};
}

Device::~Device() {
  if (owned_ && handle_ != VK_NULL_HANDLE && vk_.vkDestroyDevice != nullptr) vk_.vkDestroyDevice(handle_, nullptr);
}

VkResult Device::submit(const VkSubmitInfo& info, VkFence fence) {
  if (lock_queue_ != nullptr) lock_queue_(lock_user_data_, queue_family_, queue_index_);
  const VkResult result = vk_.vkQueueSubmit(queue_, 1, &info, fence);
  if (unlock_queue_ != nullptr) unlock_queue_(lock_user_data_, queue_family_, queue_index_);
  return note(result);
}

VkResult Device::note(VkResult result) {
  if (result == VK_ERROR_DEVICE_LOST) lost_.store(true, std::memory_order_relaxed);
  return result;
}

}  // namespace kvant
