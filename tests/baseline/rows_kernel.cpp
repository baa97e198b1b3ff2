#include "rows_kernel.hpp"

#include <array>

namespace baseline {

namespace {

constexpr std::uint32_t kCode[] = {
#include "attend_rows.inc"
};

struct Push {
  std::uint32_t tokens, kv_heads, row_bytes, k_offset, v_offset, q_offset, out_offset;
};

}  // namespace

#define ENGINE_CALL(name) engine_.device_function<PFN_##name>(#name)

std::string RowsKernel::create(const RowsShape& shape, std::uint32_t local_size) {
  shape_ = shape;
  local_size_ = local_size;
  const VkDevice device = engine_.device();
  const VkDescriptorSetLayoutBinding binding{0, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr};
  VkDescriptorSetLayoutCreateInfo set_layout{};
  set_layout.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO;
  set_layout.bindingCount = 1;
  set_layout.pBindings = &binding;
  const VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(Push)};
  VkPipelineLayoutCreateInfo layout{};
  layout.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  layout.setLayoutCount = 1;
  layout.pushConstantRangeCount = 1;
  layout.pPushConstantRanges = &range;
  const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1};
  VkDescriptorPoolCreateInfo pool{};
  pool.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO;
  pool.maxSets = 1;
  pool.poolSizeCount = 1;
  pool.pPoolSizes = &size;
  if (ENGINE_CALL(vkCreateDescriptorSetLayout)(device, &set_layout, nullptr, &set_layout_) != VK_SUCCESS) return "no descriptor set layout";
  layout.pSetLayouts = &set_layout_;
  VkDescriptorSetAllocateInfo set{};
  set.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO;
  set.descriptorSetCount = 1;
  set.pSetLayouts = &set_layout_;
  if (ENGINE_CALL(vkCreatePipelineLayout)(device, &layout, nullptr, &layout_) != VK_SUCCESS ||
      ENGINE_CALL(vkCreateDescriptorPool)(device, &pool, nullptr, &pool_) != VK_SUCCESS)
    return "no pipeline layout or descriptor pool";
  set.descriptorPool = pool_;
  if (ENGINE_CALL(vkAllocateDescriptorSets)(device, &set, &set_) != VK_SUCCESS) return "no descriptor set";
  const VkDescriptorBufferInfo buffer{reinterpret_cast<VkBuffer>(engine_.buffer()), 0, VK_WHOLE_SIZE};
  VkWriteDescriptorSet write{};
  write.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET;
  write.dstSet = set_;
  write.descriptorCount = 1;
  write.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
  write.pBufferInfo = &buffer;
  ENGINE_CALL(vkUpdateDescriptorSets)(device, 1, &write, 0, nullptr);

  VkShaderModuleCreateInfo module_info{};
  module_info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  module_info.codeSize = sizeof kCode;
  module_info.pCode = kCode;
  VkShaderModule module = VK_NULL_HANDLE;
  if (ENGINE_CALL(vkCreateShaderModule)(device, &module_info, nullptr, &module) != VK_SUCCESS) return "no shader module";
  const std::array<std::uint32_t, 4> values{local_size, shape.format, shape.head_dim, shape.group};
  std::array<VkSpecializationMapEntry, 4> entries{};
  for (std::uint32_t i = 0; i < 4; ++i) entries[i] = {i, i * 4, 4};
  const VkSpecializationInfo constants{4, entries.data(), sizeof values, values.data()};
  VkComputePipelineCreateInfo pipeline{};
  pipeline.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  pipeline.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  pipeline.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  pipeline.stage.module = module;
  pipeline.stage.pName = "main";
  pipeline.stage.pSpecializationInfo = &constants;
  pipeline.layout = layout_;
  const VkResult made = ENGINE_CALL(vkCreateComputePipelines)(device, VK_NULL_HANDLE, 1, &pipeline, nullptr, &pipeline_);
  ENGINE_CALL(vkDestroyShaderModule)(device, module, nullptr);
  return made == VK_SUCCESS ? std::string() : "no pipeline";
}

void RowsKernel::record(VkCommandBuffer commands, const RowsPlaces& places) const {
  const Push push{shape_.tokens, shape_.kv_heads, shape_.row_bytes, places.k, places.v, places.q, places.out};
  ENGINE_CALL(vkCmdBindPipeline)(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline_);
  ENGINE_CALL(vkCmdBindDescriptorSets)(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout_, 0, 1, &set_, 0, nullptr);
  ENGINE_CALL(vkCmdPushConstants)(commands, layout_, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push, &push);
  ENGINE_CALL(vkCmdDispatch)(commands, (shape_.kv_heads * shape_.group + local_size_ - 1) / local_size_, 1, 1);
}

RowsKernel::~RowsKernel() {
  const VkDevice device = engine_.device();
  if (pipeline_ != VK_NULL_HANDLE) ENGINE_CALL(vkDestroyPipeline)(device, pipeline_, nullptr);
  if (pool_ != VK_NULL_HANDLE) ENGINE_CALL(vkDestroyDescriptorPool)(device, pool_, nullptr);
  if (layout_ != VK_NULL_HANDLE) ENGINE_CALL(vkDestroyPipelineLayout)(device, layout_, nullptr);
  if (set_layout_ != VK_NULL_HANDLE) ENGINE_CALL(vkDestroyDescriptorSetLayout)(device, set_layout_, nullptr);
}

}  // namespace baseline
