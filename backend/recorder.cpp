#include "recorder.hpp"

namespace kvant {
namespace {

constexpr VkPipelineStageFlags kStages = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
constexpr VkAccessFlags kWrites = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
constexpr VkAccessFlags kReadsAndWrites = kWrites | VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_TRANSFER_READ_BIT;

VkMemoryBarrier memory_barrier(VkAccessFlags source, VkAccessFlags destination) {
  VkMemoryBarrier barrier{};
  barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  barrier.srcAccessMask = source;
  barrier.dstAccessMask = destination;
  return barrier;
}

}  // namespace

void Recorder::bind(VkPipeline pipeline) {
  if (pipeline == bound_pipeline_) return;
  vk_.vkCmdBindPipeline(commands_, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
  bound_pipeline_ = pipeline;
}

void Recorder::bind(VkDescriptorSet set) {
  if (set == bound_set_) return;
  vk_.vkCmdBindDescriptorSets(commands_, VK_PIPELINE_BIND_POINT_COMPUTE, layout_, 0, 1, &set, 0, nullptr);
  bound_set_ = set;
}

void Recorder::push(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  vk_.vkCmdPushConstants(commands_, layout_, VK_SHADER_STAGE_COMPUTE_BIT, 0, static_cast<std::uint32_t>(bytes.size()),
                         bytes.data());
}

void Recorder::dispatch(const std::array<std::uint32_t, 3>& groups) {
  vk_.vkCmdDispatch(commands_, groups[0], groups[1], groups[2]);
}

void Recorder::copy(VkBuffer source, std::uint64_t source_offset, VkBuffer destination,
                    std::uint64_t destination_offset, std::uint64_t size) {
  const VkBufferCopy region{source_offset, destination_offset, size};
  vk_.vkCmdCopyBuffer(commands_, source, destination, 1, &region);
}

void Recorder::fill(VkBuffer buffer, std::uint64_t offset, std::uint64_t size, std::uint32_t value) {
  vk_.vkCmdFillBuffer(commands_, buffer, offset, size, value);
}

void Recorder::barrier() {
  const VkMemoryBarrier barrier = memory_barrier(kWrites, kReadsAndWrites);
  vk_.vkCmdPipelineBarrier(commands_, kStages, kStages, 0, 1, &barrier, 0, nullptr, 0, nullptr);
}

void Recorder::host_read_barrier() {
  const VkMemoryBarrier barrier = memory_barrier(kWrites, VK_ACCESS_HOST_READ_BIT);
  vk_.vkCmdPipelineBarrier(commands_, kStages, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, nullptr, 0, nullptr);
}

void Recorder::reset_queries(VkQueryPool pool, std::uint32_t count) {
  vk_.vkCmdResetQueryPool(commands_, pool, 0, count);
}

void Recorder::timestamp(VkQueryPool pool, std::uint32_t query) {
  vk_.vkCmdWriteTimestamp(commands_, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, pool, query);
}

}  // namespace kvant
