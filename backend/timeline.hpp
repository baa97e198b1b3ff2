// Timeline: submits numbered by rising values, and their completion. By one timeline semaphore, or by a fence per
// submit where the device has none. Not thread-safe.
#pragma once

#include <deque>

#include "device.hpp"

namespace kvant {

class Timeline {
 public:
  static Result<std::unique_ptr<Timeline>> create(Device& device, bool use_semaphore);
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  // `value` is above every earlier one; gaps are fine. `commands` may be null: then only the completion of earlier work
  // is marked.
  Status submit(VkCommandBuffer commands, std::uint64_t value);
  // The largest value whose submit, and so every earlier one, has finished. After a lost device: everything.
  std::uint64_t completed();
  // `value` must have been submitted.
  Status wait(std::uint64_t value);

  std::uint64_t last_submitted() const { return last_submitted_; }
  // VkSemaphore as an integer; 0 in fence mode.
  std::uint64_t semaphore_handle() const;
  bool uses_semaphore() const { return semaphore_ != VK_NULL_HANDLE; }

 private:
  explicit Timeline(Device& device) : device_(device) {}
  Result<VkFence> take_fence();

  struct Pending {
    std::uint64_t value;
    VkFence fence;
  };
  Device& device_;
  VkSemaphore semaphore_ = VK_NULL_HANDLE;
  std::deque<Pending> pending_;  // fence mode: submits not known to have finished, oldest first
  std::vector<VkFence> free_fences_;
  std::uint64_t last_submitted_ = 0, completed_ = 0;
};

}  // namespace kvant
