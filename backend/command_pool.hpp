// CommandPool and DescriptorPool: command buffers and descriptor sets that are recycled once the device is done with
// them. Not thread-safe.
#pragma once

#include "device.hpp"
#include "ticket_ring.hpp"

namespace kvant {

class CommandPool {
 public:
  static Result<std::unique_ptr<CommandPool>> create(Device& device);
  ~CommandPool();
  CommandPool(const CommandPool&) = delete;
  CommandPool& operator=(const CommandPool&) = delete;

  // A command buffer in the recording state, to be free again when `ticket` completes.
  Result<VkCommandBuffer> begin(std::uint64_t ticket, std::uint64_t completed);

 private:
  explicit CommandPool(Device& device) : device_(device) {}
  Device& device_;
  VkCommandPool pool_ = VK_NULL_HANDLE;
  TicketRing<VkCommandBuffer> buffers_;
};

class DescriptorPool {
 public:
  DescriptorPool(Device& device, VkDescriptorSetLayout layout) : device_(device), layout_(layout) {}
  ~DescriptorPool();
  DescriptorPool(const DescriptorPool&) = delete;
  DescriptorPool& operator=(const DescriptorPool&) = delete;

  // A set whose contents may be written, to be free again when `ticket` completes.
  Result<VkDescriptorSet> take(std::uint64_t ticket, std::uint64_t completed);

 private:
  Status grow();
  Device& device_;
  VkDescriptorSetLayout layout_;
  std::vector<VkDescriptorPool> pools_;
  std::vector<VkDescriptorSet> fresh_;
  TicketRing<VkDescriptorSet> used_;
};

}  // namespace kvant
