// Recorder: the only writer of command buffers. Skips state that is already bound; one barrier kind for all of kvant's
// work.
#pragma once

#include <span>

#include "device.hpp"

namespace kvant {

class Recorder {
 public:
  Recorder(const Device& device, VkCommandBuffer commands, VkPipelineLayout layout)
      : vk_(device.vk()), commands_(commands), layout_(layout) {}

  void bind(VkPipeline pipeline);
  void bind(VkDescriptorSet set);
  void push(std::span<const std::byte> bytes);
  void dispatch(const std::array<std::uint32_t, 3>& groups);
  void copy(VkBuffer source, std::uint64_t source_offset, VkBuffer destination, std::uint64_t destination_offset,
            std::uint64_t size);
  void fill(VkBuffer buffer, std::uint64_t offset, std::uint64_t size, std::uint32_t value);

  // Everything before (compute and transfer) happens before and is visible to everything after (compute and transfer).
  void barrier();
  // Makes device writes visible to the host, once the submit has completed.
  void host_read_barrier();

  void reset_queries(VkQueryPool pool, std::uint32_t count);
  // The time at which everything before has finished.
  void timestamp(VkQueryPool pool, std::uint32_t query);

 private:
  const DeviceFunctions& vk_;
  VkCommandBuffer commands_;
  VkPipelineLayout layout_;
  VkPipeline bound_pipeline_ = VK_NULL_HANDLE;
  VkDescriptorSet bound_set_ = VK_NULL_HANDLE;
};

}  // namespace kvant
