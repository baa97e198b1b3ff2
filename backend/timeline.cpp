#include "timeline.hpp"

#include <algorithm>

namespace kvant {

Result<std::unique_ptr<Timeline>> Timeline::create(Device& device, bool use_semaphore) {
  std::unique_ptr<Timeline> timeline(new Timeline(device));
  if (!use_semaphore) return timeline;
  VkSemaphoreTypeCreateInfo type{};
  type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  VkSemaphoreCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
  info.pNext = &type;
  if (device.vk().vkWaitSemaphores == nullptr || device.vk().vkGetSemaphoreCounterValue == nullptr)
    return Status(StatusCode::unavailable, "the Vulkan driver lacks the entry point vkWaitSemaphores");
  const VkResult result = device.vk().vkCreateSemaphore(device.handle(), &info, nullptr, &timeline->semaphore_);
  if (result != VK_SUCCESS) return vk_status(device.note(result), "creating a timeline semaphore");
  return timeline;
}

Timeline::~Timeline() {
  const DeviceFunctions& vk = device_.vk();
  for (const Fences* fences : {&pending_, &free_})
    for (const Fence& fence : *fences) vk.vkDestroyFence(device_.handle(), fence.handle, nullptr);
  if (semaphore_ != VK_NULL_HANDLE) vk.vkDestroySemaphore(device_.handle(), semaphore_, nullptr);
}

std::uint64_t Timeline::semaphore_handle() const { return reinterpret_cast<std::uint64_t>(semaphore_); }

Status Timeline::take_fence(Fences& taken) {
  if (!free_.empty()) {
    const VkResult result = device_.note(device_.vk().vkResetFences(device_.handle(), 1, &free_.back().handle));
    if (result != VK_SUCCESS) return vk_status(result, "resetting a fence");
    taken.splice(taken.end(), free_, std::prev(free_.end()));
    return {};
  }
  Fences made(1);
  VkFenceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO;
  const VkResult result =
      device_.note(device_.vk().vkCreateFence(device_.handle(), &info, nullptr, &made.front().handle));
  if (result != VK_SUCCESS) return vk_status(result, "creating a fence");
  taken.splice(taken.end(), made);
  return {};
}

Status Timeline::submit(VkCommandBuffer commands, std::uint64_t value) {
  if (device_.lost()) return device_.lost_status();
  VkSubmitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info.commandBufferCount = commands != VK_NULL_HANDLE ? 1 : 0;
  info.pCommandBuffers = &commands;
  VkTimelineSemaphoreSubmitInfo values{};
  Fences fence;
  if (uses_semaphore()) {
    values.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
    values.signalSemaphoreValueCount = 1;
    values.pSignalSemaphoreValues = &value;
    info.pNext = &values;
    info.signalSemaphoreCount = 1;
    info.pSignalSemaphores = &semaphore_;
  } else {
    KVANT_TRY(take_fence(fence));
    fence.front().value = value;
  }
  const VkResult result = device_.submit(info, fence.empty() ? VK_NULL_HANDLE : fence.front().handle);
  if (result != VK_SUCCESS) {
    free_.splice(free_.end(), fence);
    return vk_status(result, "submitting commands");
  }
  pending_.splice(pending_.end(), fence);
  last_submitted_ = value;
  return {};
}

std::uint64_t Timeline::completed() {
  if (device_.lost()) return last_submitted_;
  if (completed_ == last_submitted_) return completed_;
  if (uses_semaphore()) {
    std::uint64_t value = 0;
    if (device_.note(device_.vk().vkGetSemaphoreCounterValue(device_.handle(), semaphore_, &value)) == VK_SUCCESS)
      completed_ = std::max(completed_, value);
    return device_.lost() ? last_submitted_ : completed_;
  }
  while (!pending_.empty()) {
    if (device_.note(device_.vk().vkGetFenceStatus(device_.handle(), pending_.front().handle)) != VK_SUCCESS) break;
    completed_ = std::max(completed_, pending_.front().value);
    free_.splice(free_.end(), pending_, pending_.begin());
  }
  return device_.lost() ? last_submitted_ : completed_;
}

Status Timeline::wait(std::uint64_t value) {
  if (device_.lost()) return device_.lost_status();
  if (value <= completed_) return {};
  VkResult result = VK_SUCCESS;
  if (uses_semaphore()) {
    VkSemaphoreWaitInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
    info.semaphoreCount = 1;
    info.pSemaphores = &semaphore_;
    info.pValues = &value;
    result = device_.note(device_.vk().vkWaitSemaphores(device_.handle(), &info, UINT64_MAX));
  } else {
    // A fence also covers every earlier submit to its queue.
    const auto first =
        std::find_if(pending_.begin(), pending_.end(), [value](const Fence& fence) { return fence.value >= value; });
    if (first != pending_.end())
      result = device_.note(device_.vk().vkWaitForFences(device_.handle(), 1, &first->handle, VK_TRUE, UINT64_MAX));
  }
  if (result != VK_SUCCESS) return vk_status(result, "waiting for the device");
  completed();
  completed_ = std::max(completed_, value);
  return {};
}

}  // namespace kvant
