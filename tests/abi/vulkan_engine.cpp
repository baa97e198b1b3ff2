#include "vulkan_engine.hpp"

#include <dlfcn.h>

#include <cstring>

namespace abi_test {
namespace {

constexpr const char* kLayer = "VK_LAYER_KHRONOS_validation";

}  // namespace

std::string VulkanEngine::start(VkDeviceSize buffer_bytes, const EngineFeatures& wanted) {
  wanted_ = wanted;
  loader_ = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
  if (loader_ == nullptr) return "there is no Vulkan loader";
  get_instance_ = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(loader_, "vkGetInstanceProcAddr"));
  if (get_instance_ == nullptr) return "the loader lacks vkGetInstanceProcAddr";
  if (std::string missing = create_instance(); !missing.empty()) return missing;
  if (std::string missing = create_device(); !missing.empty()) return missing;
  return create_buffer(buffer_bytes);
}

std::string VulkanEngine::create_instance() {
  const auto layers = reinterpret_cast<PFN_vkEnumerateInstanceLayerProperties>(
      get_instance_(nullptr, "vkEnumerateInstanceLayerProperties"));
  std::uint32_t count = 0;
  layers(&count, nullptr);
  std::vector<VkLayerProperties> found(count);
  layers(&count, found.data());
  for (const VkLayerProperties& layer : found) validated_ = validated_ || std::strcmp(layer.layerName, kLayer) == 0;

  VkApplicationInfo application{};
  application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  application.apiVersion = VK_API_VERSION_1_2;
  const VkValidationFeatureEnableEXT enabled = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
  VkValidationFeaturesEXT validation{};
  validation.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT;
  validation.enabledValidationFeatureCount = 1;
  validation.pEnabledValidationFeatures = &enabled;
  const char* extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
  VkInstanceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pApplicationInfo = &application;
  if (validated_) {
    info.pNext = &validation;
    info.enabledLayerCount = 1;
    info.ppEnabledLayerNames = &kLayer;
    info.enabledExtensionCount = 1;
    info.ppEnabledExtensionNames = extensions;
  }
  const auto create = reinterpret_cast<PFN_vkCreateInstance>(get_instance_(nullptr, "vkCreateInstance"));
  if (create(&info, nullptr, &instance_) != VK_SUCCESS) return "vkCreateInstance failed";
  get_device_ = instance_function<PFN_vkGetDeviceProcAddr>("vkGetDeviceProcAddr");
  if (!validated_) return {};

  VkDebugUtilsMessengerCreateInfoEXT messenger{};
  messenger.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
  messenger.messageSeverity =
      VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  messenger.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT;
  messenger.pUserData = this;
  messenger.pfnUserCallback = [](VkDebugUtilsMessageSeverityFlagBitsEXT, VkDebugUtilsMessageTypeFlagsEXT,
                                 const VkDebugUtilsMessengerCallbackDataEXT* data, void* user) -> VkBool32 {
    auto& engine = *static_cast<VulkanEngine*>(user);
    const std::lock_guard lock(engine.messages_mutex_);
    engine.messages_.emplace_back(data->pMessage);
    return VK_FALSE;
  };
  const auto create_messenger = instance_function<PFN_vkCreateDebugUtilsMessengerEXT>("vkCreateDebugUtilsMessengerEXT");
  return create_messenger(instance_, &messenger, nullptr, &messenger_) == VK_SUCCESS ? "" : "no debug messenger";
}

// Asks what the device offers, struct by struct, and links those that have a wanted bit, with no other bit set.
void VulkanEngine::choose_features() {
  const auto query = instance_function<PFN_vkGetPhysicalDeviceFeatures2>("vkGetPhysicalDeviceFeatures2");
  const auto list = instance_function<PFN_vkEnumerateDeviceExtensionProperties>("vkEnumerateDeviceExtensionProperties");
  std::uint32_t count = 0;
  list(physical_, nullptr, &count, nullptr);
  std::vector<VkExtensionProperties> offered(count);
  list(physical_, nullptr, &count, offered.data());
  const auto has = [&](const char* name) {
    for (const VkExtensionProperties& extension : offered)
      if (std::strcmp(extension.extensionName, name) == 0) return true;
    return false;
  };
  VkPhysicalDeviceProperties properties{};
  instance_function<PFN_vkGetPhysicalDeviceProperties>("vkGetPhysicalDeviceProperties")(physical_, &properties);
  if (properties.apiVersion < VK_API_VERSION_1_2) wanted_.collected = false;
  void* chain = nullptr;  // of what is enabled
  // Links the struct if the device has the bit; true where it does.
  const auto take = [&](auto& feature, auto member, bool wanted, bool linked = true) {
    VkPhysicalDeviceFeatures2 root{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &feature, {}};
    feature.pNext = nullptr;
    query(physical_, &root);
    const bool found = wanted && feature.*member != 0;
    const VkStructureType type = feature.sType;
    std::memset(&feature, 0, sizeof feature);
    feature.sType = type;
    feature.pNext = chain;
    if (!found) return false;
    feature.*member = VK_TRUE;
    if (linked) chain = &feature;
    return true;
  };
  const bool apart = !wanted_.collected;
  enabled_.timeline = take(timeline_, &VkPhysicalDeviceTimelineSemaphoreFeatures::timelineSemaphore, wanted_.timeline, apart);
  enabled_.fp16 = take(fp16_, &VkPhysicalDeviceShaderFloat16Int8Features::shaderFloat16, wanted_.fp16, apart);
  enabled_.storage16 = take(storage16_, &VkPhysicalDevice16BitStorageFeatures::storageBuffer16BitAccess, wanted_.storage16, apart);
  enabled_.storage8 = take(storage8_, &VkPhysicalDevice8BitStorageFeatures::storageBuffer8BitAccess, wanted_.storage8, apart);
  // The scope's bit, for which the other is a condition: kvant_ext_vulkan.h asks engines to enable neither or both.
  enabled_.memory_model =
      take(model_, &VkPhysicalDeviceVulkanMemoryModelFeatures::vulkanMemoryModelDeviceScope, wanted_.memory_model, apart);
  model_.vulkanMemoryModel = model_.vulkanMemoryModelDeviceScope;
  const auto take_extension = [&](const char* name, auto& feature, auto member, bool wanted) {
    if (!has(name) || !take(feature, member, wanted)) return false;
    extensions_.push_back(name);
    return true;
  };
  enabled_.int_dot = take_extension(VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME, int_dot_,
                                    &VkPhysicalDeviceShaderIntegerDotProductFeatures::shaderIntegerDotProduct, wanted_.int_dot);
  enabled_.subgroup_size = take_extension(VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME, subgroup_size_,
                                          &VkPhysicalDeviceSubgroupSizeControlFeatures::subgroupSizeControl, wanted_.subgroup_size);
  if (!apart) {
    core11_.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    core11_.pNext = chain;
    core11_.storageBuffer16BitAccess = enabled_.storage16 ? VK_TRUE : VK_FALSE;
    core12_.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    core12_.pNext = &core11_;
    core12_.timelineSemaphore = enabled_.timeline ? VK_TRUE : VK_FALSE;
    core12_.shaderFloat16 = enabled_.fp16 ? VK_TRUE : VK_FALSE;
    core12_.storageBuffer8BitAccess = enabled_.storage8 ? VK_TRUE : VK_FALSE;
    core12_.vulkanMemoryModel = core12_.vulkanMemoryModelDeviceScope = enabled_.memory_model ? VK_TRUE : VK_FALSE;
    chain = &core12_;
    enabled_.collected = true;
  }
  VkPhysicalDeviceFeatures2 all{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, nullptr, {}};
  query(physical_, &all);
  enabled_.int16 = wanted_.int16 && all.features.shaderInt16 != 0;
  enabled_.robust_access = wanted_.robust_access && all.features.robustBufferAccess != 0;
  features_.pNext = chain;
  features_.features.shaderInt16 = enabled_.int16 ? VK_TRUE : VK_FALSE;
  features_.features.robustBufferAccess = enabled_.robust_access ? VK_TRUE : VK_FALSE;
  enabled_.say_nothing = wanted_.say_nothing;
}

std::string VulkanEngine::create_device() {
  std::uint32_t count = 1;
  instance_function<PFN_vkEnumeratePhysicalDevices>("vkEnumeratePhysicalDevices")(instance_, &count, &physical_);
  if (count == 0) return "there is no physical device";
  const auto families =
      instance_function<PFN_vkGetPhysicalDeviceQueueFamilyProperties>("vkGetPhysicalDeviceQueueFamilyProperties");
  families(physical_, &count, nullptr);
  std::vector<VkQueueFamilyProperties> properties(count);
  families(physical_, &count, properties.data());
  while (family_ < count && (properties[family_].queueFlags & VK_QUEUE_COMPUTE_BIT) == 0) ++family_;
  if (family_ == count) return "there is no compute queue";

  choose_features();
  const float priority = 1.0F;
  VkDeviceQueueCreateInfo queue{};
  queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  queue.queueFamilyIndex = family_;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  VkDeviceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = &features_;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = static_cast<std::uint32_t>(extensions_.size());
  info.ppEnabledExtensionNames = extensions_.data();
  if (instance_function<PFN_vkCreateDevice>("vkCreateDevice")(physical_, &info, nullptr, &device_) != VK_SUCCESS)
    return "vkCreateDevice failed";
  device_function<PFN_vkGetDeviceQueue>("vkGetDeviceQueue")(device_, family_, 0, &queue_);

  VkCommandPoolCreateInfo pool{};
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool.queueFamilyIndex = family_;
  VkFenceCreateInfo fence{};
  fence.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO;
  if (device_function<PFN_vkCreateCommandPool>("vkCreateCommandPool")(device_, &pool, nullptr, &pool_) != VK_SUCCESS ||
      device_function<PFN_vkCreateFence>("vkCreateFence")(device_, &fence, nullptr, &fence_) != VK_SUCCESS)
    return "no command pool or fence";
  return {};
}

std::string VulkanEngine::create_buffer(VkDeviceSize bytes) {
  VkBufferCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.size = bytes;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  if (device_function<PFN_vkCreateBuffer>("vkCreateBuffer")(device_, &info, nullptr, &buffer_) != VK_SUCCESS)
    return "vkCreateBuffer failed";
  VkMemoryRequirements needs{};
  device_function<PFN_vkGetBufferMemoryRequirements>("vkGetBufferMemoryRequirements")(device_, buffer_, &needs);
  VkPhysicalDeviceMemoryProperties memory{};
  instance_function<PFN_vkGetPhysicalDeviceMemoryProperties>("vkGetPhysicalDeviceMemoryProperties")(physical_, &memory);
  constexpr VkMemoryPropertyFlags kWanted = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  VkMemoryAllocateInfo allocation{};
  allocation.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  allocation.allocationSize = needs.size;
  while (allocation.memoryTypeIndex < memory.memoryTypeCount &&
         ((needs.memoryTypeBits >> allocation.memoryTypeIndex & 1) == 0 ||
          (memory.memoryTypes[allocation.memoryTypeIndex].propertyFlags & kWanted) != kWanted))
    ++allocation.memoryTypeIndex;
  void* mapped = nullptr;
  if (device_function<PFN_vkAllocateMemory>("vkAllocateMemory")(device_, &allocation, nullptr, &memory_) != VK_SUCCESS ||
      device_function<PFN_vkBindBufferMemory>("vkBindBufferMemory")(device_, buffer_, memory_, 0) != VK_SUCCESS ||
      device_function<PFN_vkMapMemory>("vkMapMemory")(device_, memory_, 0, VK_WHOLE_SIZE, 0, &mapped) != VK_SUCCESS)
    return "no mapped memory";
  mapped_ = static_cast<unsigned char*>(mapped);
  std::memset(mapped_, 0, bytes);
  return {};
}

VulkanEngine::~VulkanEngine() {
  if (device_ != VK_NULL_HANDLE) {
    device_function<PFN_vkDeviceWaitIdle>("vkDeviceWaitIdle")(device_);
    device_function<PFN_vkDestroyFence>("vkDestroyFence")(device_, fence_, nullptr);
    device_function<PFN_vkDestroyCommandPool>("vkDestroyCommandPool")(device_, pool_, nullptr);
    device_function<PFN_vkDestroyBuffer>("vkDestroyBuffer")(device_, buffer_, nullptr);
    device_function<PFN_vkFreeMemory>("vkFreeMemory")(device_, memory_, nullptr);
    device_function<PFN_vkDestroyDevice>("vkDestroyDevice")(device_, nullptr);
  }
  if (messenger_ != VK_NULL_HANDLE)
    instance_function<PFN_vkDestroyDebugUtilsMessengerEXT>("vkDestroyDebugUtilsMessengerEXT")(instance_, messenger_, nullptr);
  if (instance_ != VK_NULL_HANDLE) instance_function<PFN_vkDestroyInstance>("vkDestroyInstance")(instance_, nullptr);
  // The loader stays: drivers do not all survive being unloaded.
}

kvant_vulkan_device_args VulkanEngine::import_args() {
  kvant_vulkan_device_args args{};
  args.struct_size = sizeof args;
  args.get_instance_proc_addr = reinterpret_cast<void*>(get_instance_);
  args.instance = instance_;
  args.physical_device = physical_;
  args.device = device_;
  args.queue_family = family_;
  args.enabled_features = wanted_.say_nothing ? nullptr : &features_;
  args.enabled_extensions = extensions_.data();
  args.enabled_extension_count = static_cast<std::uint32_t>(extensions_.size());
  args.user_data = this;
  args.lock_queue = [](void* user, std::uint32_t, std::uint32_t) {
    auto& engine = *static_cast<VulkanEngine*>(user);
    engine.queue_mutex_.lock();
    ++engine.locks;
    if (engine.inside_lock != nullptr) engine.inside_lock(engine.inside_lock_data);
  };
  args.unlock_queue = [](void* user, std::uint32_t, std::uint32_t) {
    auto& engine = *static_cast<VulkanEngine*>(user);
    ++engine.unlocks;
    engine.queue_mutex_.unlock();
  };
  return args;
}

std::vector<std::string> VulkanEngine::validation_messages() {
  const std::lock_guard lock(messages_mutex_);
  return messages_;
}

VkCommandBuffer VulkanEngine::begin() {
  VkCommandBufferAllocateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  info.commandPool = pool_;
  info.commandBufferCount = 1;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  device_function<PFN_vkAllocateCommandBuffers>("vkAllocateCommandBuffers")(device_, &info, &commands);
  VkCommandBufferBeginInfo begin_info{};
  begin_info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin_info.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  device_function<PFN_vkBeginCommandBuffer>("vkBeginCommandBuffer")(commands, &begin_info);
  return commands;
}

bool VulkanEngine::submit_and_wait(VkCommandBuffer commands) {
  VkMemoryBarrier barrier{};
  barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  barrier.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  device_function<PFN_vkCmdPipelineBarrier>("vkCmdPipelineBarrier")(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                                                     VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, nullptr, 0,
                                                                     nullptr);
  if (device_function<PFN_vkEndCommandBuffer>("vkEndCommandBuffer")(commands) != VK_SUCCESS) return false;
  VkSubmitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info.commandBufferCount = 1;
  info.pCommandBuffers = &commands;
  {
    const std::lock_guard lock(queue_mutex_);
    if (device_function<PFN_vkQueueSubmit>("vkQueueSubmit")(queue_, 1, &info, fence_) != VK_SUCCESS) return false;
  }
  constexpr std::uint64_t kMinute = 60'000'000'000;
  const bool done = device_function<PFN_vkWaitForFences>("vkWaitForFences")(device_, 1, &fence_, VK_TRUE, kMinute) == VK_SUCCESS;
  device_function<PFN_vkResetFences>("vkResetFences")(device_, 1, &fence_);
  return done;
}

bool VulkanEngine::wait_timeline(std::uint64_t semaphore, std::uint64_t value) {
  const auto handle = reinterpret_cast<VkSemaphore>(semaphore);
  VkSemaphoreWaitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
  info.semaphoreCount = 1;
  info.pSemaphores = &handle;
  info.pValues = &value;
  return device_function<PFN_vkWaitSemaphores>("vkWaitSemaphores")(device_, &info, 60'000'000'000) == VK_SUCCESS;
}

}  // namespace abi_test
