// RowsKernel: attend_rows.comp on an engine's device.
#pragma once

#include <cstdint>
#include <string>

#include "vulkan_engine.hpp"

namespace baseline {

struct RowsShape {
  std::uint32_t format = 0, head_dim = 128, group = 1, kv_heads = 1, tokens = 0, row_bytes = 0;
};

// Places in the engine's buffer, bytes; K and V in canonical rows [token][kv_head], Q and OUT in floats [query head][head_dim].
struct RowsPlaces {
  std::uint32_t k = 0, v = 0, q = 0, out = 0;
};

class RowsKernel {
 public:
  explicit RowsKernel(abi_test::VulkanEngine& engine) : engine_(engine) {}
  ~RowsKernel();
  RowsKernel(const RowsKernel&) = delete;
  RowsKernel& operator=(const RowsKernel&) = delete;

  // Empty: it stands; else why not.
  std::string create(const RowsShape& shape, std::uint32_t local_size);
  void record(VkCommandBuffer commands, const RowsPlaces& places) const;

 private:
  abi_test::VulkanEngine& engine_;
  RowsShape shape_;
  std::uint32_t local_size_ = 1;
  VkDescriptorSetLayout set_layout_ = VK_NULL_HANDLE;
  VkPipelineLayout layout_ = VK_NULL_HANDLE;
  VkDescriptorPool pool_ = VK_NULL_HANDLE;
  VkDescriptorSet set_ = VK_NULL_HANDLE;
  VkPipeline pipeline_ = VK_NULL_HANDLE;
};

}  // namespace baseline
