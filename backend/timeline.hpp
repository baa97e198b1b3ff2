// Timeline: submits numbered by rising values, and their completion. By one timeline semaphore, or by a fence per
// submit where the device has none. Not thread-safe.
#pragma once

#include <list>

#include "device.hpp"

namespace kvant {

class Timeline {
 public:
  static Result<std::unique_ptr<Timeline>> create(Device& device, bool use_semaphore);
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  // `value` is above every earlier one. `commands` may be null: then only the completion of earlier work is marked.
  // Once the driver has taken the submit nothing fails any more.
  Status submit(VkCommandBuffer commands, std::uint64_t value);
  // The largest value whose submit, and so every earlier one, has finished. After a lost device: everything.
  std::uint64_t completed();
  // `value` must have been submitted, itself and not only a greater one: the semaphore is waited for at no other values
  // than those that a submit signals.
  Status wait(std::uint64_t value);

  std::uint64_t last_submitted() const { return last_submitted_; }
  // VkSemaphore as an integer; 0 in fence mode.
  std::uint64_t semaphore_handle() const;
  bool uses_semaphore() const { return semaphore_ != VK_NULL_HANDLE; }

 private:
  explicit Timeline(Device& device) : device_(device) {}

  struct Fence {
    VkFence handle = VK_NULL_HANDLE;
    std::uint64_t value = 0;  // of its submit
  };
  // Nodes go from list to list, which takes no memory.
  using Fences = std::list<Fence>;
  Status take_fence(Fences& taken);

  Device& device_;
  VkSemaphore semaphore_ = VK_NULL_HANDLE;
  Fences pending_;  // fence mode: submits not known to have finished, oldest first
  Fences free_;
  std::uint64_t last_submitted_ = 0, completed_ = 0;
};

}  // namespace kvant
