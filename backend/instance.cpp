// Instance: a VkInstance of our own, its devices, the validation layer on demand; and the way in for borrowed devices.
#include <algorithm>
#include <cstring>

#include "device_context.hpp"
#include "device_probe.hpp"
#include "feature_chain.hpp"

namespace kvant {
namespace {

constexpr const char* kValidationLayer = "VK_LAYER_KHRONOS_validation";
constexpr const char* kPortability = "VK_KHR_portability_enumeration";
constexpr VkInstanceCreateFlags kEnumeratePortability = 0x1;

VKAPI_ATTR VkBool32 VKAPI_CALL on_validation_message(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                                     VkDebugUtilsMessageTypeFlagsEXT,
                                                     const VkDebugUtilsMessengerCallbackDataEXT* data,
                                                     void* user_data) {
  const auto& options = *static_cast<const InstanceOptions*>(user_data);
  const char* message = data->pMessage != nullptr ? data->pMessage : "";
  if (options.validation_message != nullptr) options.validation_message(options.validation_user_data, message);
  options.log.write(LogLevel::error, message);
  return VK_FALSE;
}

std::vector<std::string> instance_extensions(const GlobalFunctions& vk, const char* layer) {
  std::uint32_t count = 0;
  if (vk.vkEnumerateInstanceExtensionProperties(layer, &count, nullptr) != VK_SUCCESS) return {};
  std::vector<VkExtensionProperties> properties(count);
  if (vk.vkEnumerateInstanceExtensionProperties(layer, &count, properties.data()) < 0) return {};
  std::vector<std::string> names;
  for (std::uint32_t i = 0; i < count; ++i) names.emplace_back(properties[i].extensionName);
  return names;
}

bool has_layer(const GlobalFunctions& vk, const char* name) {
  std::uint32_t count = 0;
  if (vk.vkEnumerateInstanceLayerProperties(&count, nullptr) != VK_SUCCESS) return false;
  std::vector<VkLayerProperties> layers(count);
  if (vk.vkEnumerateInstanceLayerProperties(&count, layers.data()) < 0) return false;
  return std::any_of(layers.begin(), layers.end(),
                     [name](const auto& layer) { return std::strcmp(layer.layerName, name) == 0; });
}

bool contains(const std::vector<std::string>& names, const char* name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Status create_vk_instance(const GlobalFunctions& vk, InstanceHandle& handle) {
  std::uint32_t loader_version = VK_API_VERSION_1_0;
  if (vk.vkEnumerateInstanceVersion != nullptr) vk.vkEnumerateInstanceVersion(&loader_version);
  if (loader_version < VK_API_VERSION_1_1)
    return {StatusCode::unavailable, "the Vulkan loader's version (" + version_text(loader_version) + ") is below 1.1"};
  handle.api_version = std::min<std::uint32_t>(loader_version, VK_API_VERSION_1_3);

  VkApplicationInfo application{};
  application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  application.pApplicationName = "kvant";
  application.pEngineName = "kvant";
  application.apiVersion = handle.api_version;

  std::vector<const char*> layers, extensions;
  VkInstanceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pApplicationInfo = &application;
  const std::vector<std::string> offered = instance_extensions(vk, nullptr);
  if (contains(offered, kPortability)) {
    extensions.push_back(kPortability);
    info.flags |= kEnumeratePortability;
  }

  const VkValidationFeatureEnableEXT enabled[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
  VkValidationFeaturesEXT validation{};
  validation.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT;
  validation.enabledValidationFeatureCount = 1;
  validation.pEnabledValidationFeatures = enabled;
  VkDebugUtilsMessengerCreateInfoEXT messenger{};
  messenger.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
  messenger.messageSeverity =
      VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  // Not the general type: loaders report drivers there that they skip.
  messenger.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
  messenger.pfnUserCallback = on_validation_message;
  messenger.pUserData = &handle.options;
  bool messages = false;
  if (handle.options.validation) {
    if (has_layer(vk, kValidationLayer)) {
      layers.push_back(kValidationLayer);
      const std::vector<std::string> of_layer = instance_extensions(vk, kValidationLayer);
      if (contains(of_layer, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME)) {
        extensions.push_back(VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME);
        info.pNext = &validation;
      }
      if (contains(of_layer, VK_EXT_DEBUG_UTILS_EXTENSION_NAME) ||
          contains(offered, VK_EXT_DEBUG_UTILS_EXTENSION_NAME)) {
        extensions.push_back(VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
        messages = true;
      }
    } else {
      handle.options.log.write(LogLevel::warning,
                               "validation was asked for, but VK_LAYER_KHRONOS_validation is not installed");
    }
  }
  info.enabledLayerCount = static_cast<std::uint32_t>(layers.size());
  info.ppEnabledLayerNames = layers.data();
  info.enabledExtensionCount = static_cast<std::uint32_t>(extensions.size());
  info.ppEnabledExtensionNames = extensions.data();
  const VkResult result = vk.vkCreateInstance(&info, nullptr, &handle.instance);
  if (result != VK_SUCCESS) return vk_status(result, "creating a Vulkan instance");
  Result<InstanceFunctions> functions =
      InstanceFunctions::load(handle.library.get_instance_proc_addr(), handle.instance);
  if (!functions.ok()) {
    handle.instance = VK_NULL_HANDLE;  // without its functions it cannot even be destroyed
    return functions.status();
  }
  handle.vk = functions.value();
  if (messages && handle.vk.vkCreateDebugUtilsMessengerEXT != nullptr)
    handle.vk.vkCreateDebugUtilsMessengerEXT(handle.instance, &messenger, nullptr, &handle.messenger);
  return {};
}

class VulkanInstance final : public Instance {
 public:
  static Result<std::unique_ptr<Instance>> create(const InstanceOptions& options) {
    std::unique_ptr<VulkanInstance> instance(new VulkanInstance);
    instance->handle_ = std::make_shared<InstanceHandle>();
    InstanceHandle& handle = *instance->handle_;
    handle.options = options;
    KVANT_ASSIGN(handle.library, VulkanLibrary::open());
    KVANT_ASSIGN(const GlobalFunctions global, GlobalFunctions::load(handle.library.get_instance_proc_addr()));
    KVANT_TRY(create_vk_instance(global, handle));

    std::uint32_t count = 0;
    VkResult result = handle.vk.vkEnumeratePhysicalDevices(handle.instance, &count, nullptr);
    instance->physical_.resize(count);
    if (result == VK_SUCCESS && count != 0)
      result = handle.vk.vkEnumeratePhysicalDevices(handle.instance, &count, instance->physical_.data());
    if (result != VK_SUCCESS && result != VK_INCOMPLETE) return vk_status(result, "listing Vulkan devices");
    instance->physical_.resize(count);
    for (const VkPhysicalDevice device : instance->physical_)
      instance->devices_.push_back(probe_device(handle.vk, device, handle.api_version));
    return std::unique_ptr<Instance>(std::move(instance));
  }

  std::span<const DeviceSnapshot> devices() const override { return devices_; }

  Result<std::uint32_t> best_device() const override {
    std::vector<DevicePlan> plans;
    for (const DeviceSnapshot& device : devices_) {
      KVANT_ASSIGN(DevicePlan plan, make_device_plan(device, ""));
      plans.push_back(std::move(plan));
    }
    return choose_device(plans);
  }

  Result<std::unique_ptr<DeviceContext>> open(std::uint32_t index, const DeviceOptions& options) override {
    if (index >= devices_.size()) {
      return Status(StatusCode::not_found,
                    "device index (" + std::to_string(index) + ") is not below " + std::to_string(devices_.size()));
    }
    return VulkanContext::open(handle_, physical_[index], devices_[index], options);
  }

 private:
  VulkanInstance() = default;
  std::shared_ptr<InstanceHandle> handle_;
  std::vector<VkPhysicalDevice> physical_;
  std::vector<DeviceSnapshot> devices_;
};

}  // namespace

Result<std::unique_ptr<Instance>> Instance::create(const InstanceOptions& options) {
  return VulkanInstance::create(options);
}

Result<std::unique_ptr<DeviceContext>> borrow_device(const BorrowedDevice& borrowed, const DeviceOptions& options,
                                                     const InstanceOptions& instance_options) {
  if (borrowed.instance == nullptr || borrowed.physical_device == nullptr || borrowed.device == nullptr)
    return Status(StatusCode::invalid_argument, "a borrowed device needs an instance, a physical device and a device");
  auto handle = std::make_shared<InstanceHandle>();
  handle->options = instance_options;
  handle->owned = false;
  handle->instance = static_cast<VkInstance>(borrowed.instance);
  handle->api_version = VK_API_VERSION_1_3;  // the engine's is not known; what it enabled decides
  auto get = reinterpret_cast<PFN_vkGetInstanceProcAddr>(borrowed.get_instance_proc_addr);
  if (get == nullptr) {
    KVANT_ASSIGN(handle->library, VulkanLibrary::open());
    get = handle->library.get_instance_proc_addr();
  }
  KVANT_ASSIGN(handle->vk, InstanceFunctions::load(get, handle->instance));
  const auto physical = static_cast<VkPhysicalDevice>(borrowed.physical_device);
  DeviceSnapshot snapshot = probe_device(handle->vk, physical, handle->api_version);
  restrict_to_enabled(snapshot, borrowed.enabled_features, borrowed.enabled_extensions);
  return VulkanContext::borrow(std::move(handle), borrowed, std::move(snapshot), options);
}

}  // namespace kvant
