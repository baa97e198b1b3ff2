#include "command_pool.hpp"

#include "executor.hpp"

namespace kvant {

// Sets per VkDescriptorPool: about a step of a 32-layer model.
constexpr std::uint32_t kSetsPerPool = 128;

Result<std::unique_ptr<CommandPool>> CommandPool::create(Device& device) {
  std::unique_ptr<CommandPool> pool(new CommandPool(device));
  VkCommandPoolCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  info.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
  info.queueFamilyIndex = device.queue_family();
  const VkResult result = device.note(device.vk().vkCreateCommandPool(device.handle(), &info, nullptr, &pool->pool_));
  if (result != VK_SUCCESS) return vk_status(result, "creating a command pool");
  return pool;
}

CommandPool::~CommandPool() {
  if (pool_ != VK_NULL_HANDLE) device_.vk().vkDestroyCommandPool(device_.handle(), pool_, nullptr);
}

Result<VkCommandBuffer> CommandPool::begin(std::uint64_t ticket, std::uint64_t completed) {
  VkCommandBuffer buffer = VK_NULL_HANDLE;
  if (const auto recycled = buffers_.take(completed)) {
    buffer = *recycled;
  } else {
    VkCommandBufferAllocateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
    info.commandPool = pool_;
    info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
    info.commandBufferCount = 1;
    const VkResult result = device_.note(device_.vk().vkAllocateCommandBuffers(device_.handle(), &info, &buffer));
    if (result != VK_SUCCESS) return vk_status(result, "allocating a command buffer");
  }
  buffers_.give(buffer, ticket);
  VkCommandBufferBeginInfo begin{};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  const VkResult result = device_.note(device_.vk().vkBeginCommandBuffer(buffer, &begin));
  if (result != VK_SUCCESS) return vk_status(result, "beginning a command buffer");
  return buffer;
}

DescriptorPool::~DescriptorPool() {
  for (const VkDescriptorPool pool : pools_) device_.vk().vkDestroyDescriptorPool(device_.handle(), pool, nullptr);
}

Status DescriptorPool::grow() {
  const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  kSetsPerPool * static_cast<std::uint32_t>(kMaxBindings)};
  VkDescriptorPoolCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO;
  info.maxSets = kSetsPerPool;
  info.poolSizeCount = 1;
  info.pPoolSizes = &size;
  const std::vector<VkDescriptorSetLayout> layouts(kSetsPerPool, layout_);
  std::vector<VkDescriptorSet> sets(kSetsPerPool);
  pools_.reserve(pools_.size() + 1);
  VkDescriptorPool pool = VK_NULL_HANDLE;
  VkResult result = device_.note(device_.vk().vkCreateDescriptorPool(device_.handle(), &info, nullptr, &pool));
  if (result != VK_SUCCESS)
    return vk_status(result, "creating a descriptor pool of " + std::to_string(kSetsPerPool) + " sets");
  VkDescriptorSetAllocateInfo allocate{};
  allocate.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO;
  allocate.descriptorPool = pool;
  allocate.descriptorSetCount = kSetsPerPool;
  allocate.pSetLayouts = layouts.data();
  result = device_.note(device_.vk().vkAllocateDescriptorSets(device_.handle(), &allocate, sets.data()));
  if (result != VK_SUCCESS) {
    device_.vk().vkDestroyDescriptorPool(device_.handle(), pool, nullptr);
    return vk_status(result, "allocating " + std::to_string(kSetsPerPool) + " descriptor sets");
  }
  pools_.push_back(pool);
  fresh_ = std::move(sets);
  return {};
}

Result<VkDescriptorSet> DescriptorPool::take(std::uint64_t ticket, std::uint64_t completed) {
  VkDescriptorSet set = VK_NULL_HANDLE;
  if (const auto recycled = used_.take(completed)) {
    set = *recycled;
  } else {
    if (fresh_.empty()) KVANT_TRY(grow());
    set = fresh_.back();
    fresh_.pop_back();
  }
  used_.give(set, ticket);
  return set;
}

}  // namespace kvant
