#include "vk_loader.hpp"

#include <dlfcn.h>

#include <utility>

namespace kvant {
namespace {

constexpr const char* kLibraryNames[] = {"libvulkan.so.1", "libvulkan.so", "libvulkan.1.dylib", "libMoltenVK.dylib"};

Status missing(const char* name) {
  return {StatusCode::unavailable, std::string("the Vulkan driver lacks the entry point ") + name};
}

}  // namespace

Result<VulkanLibrary> VulkanLibrary::open() {
  std::string reasons;
  for (const char* name : kLibraryNames) {
    // NODELETE: drivers start threads and keep thread-local data that do not survive being unmapped.
    void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == nullptr) {
      const char* reason = dlerror();
      reasons += std::string(reasons.empty() ? "" : "; ") + (reason != nullptr ? reason : name);
      continue;
    }
    VulkanLibrary library;
    library.handle_ = handle;
    library.get_instance_proc_addr_ =
        reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(handle, "vkGetInstanceProcAddr"));
    if (library.get_instance_proc_addr_ != nullptr) return library;
    reasons += std::string(reasons.empty() ? "" : "; ") + name + " has no vkGetInstanceProcAddr";
  }
  return Status(StatusCode::unavailable, "no Vulkan loader could be opened: " + reasons);
}

VulkanLibrary::VulkanLibrary(VulkanLibrary&& other) noexcept { *this = std::move(other); }

VulkanLibrary& VulkanLibrary::operator=(VulkanLibrary&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(get_instance_proc_addr_, other.get_instance_proc_addr_);
  return *this;
}

VulkanLibrary::~VulkanLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

Result<GlobalFunctions> GlobalFunctions::load(PFN_vkGetInstanceProcAddr get) {
  GlobalFunctions table;
  table.vkEnumerateInstanceVersion =
      reinterpret_cast<PFN_vkEnumerateInstanceVersion>(get(nullptr, "vkEnumerateInstanceVersion"));
#define KVANT_VK_GLOBAL(name)                                     \
  table.name = reinterpret_cast<PFN_##name>(get(nullptr, #name)); \
  if (table.name == nullptr) return missing(#name);
#include "vk_functions.def"
  return table;
}

Result<InstanceFunctions> InstanceFunctions::load(PFN_vkGetInstanceProcAddr get, VkInstance instance) {
  InstanceFunctions table;
#define KVANT_VK_INSTANCE_OPTIONAL(name, alias)                    \
  table.name = reinterpret_cast<PFN_##name>(get(instance, #name)); \
  if (table.name == nullptr) table.name = reinterpret_cast<PFN_##name>(get(instance, #alias));
#define KVANT_VK_INSTANCE(name, alias)    \
  KVANT_VK_INSTANCE_OPTIONAL(name, alias) \
  if (table.name == nullptr) return missing(#name);
#include "vk_functions.def"
  return table;
}

Result<DeviceFunctions> DeviceFunctions::load(PFN_vkGetDeviceProcAddr get, VkDevice device) {
  DeviceFunctions table;
#define KVANT_VK_DEVICE_OPTIONAL(name, alias)                    \
  table.name = reinterpret_cast<PFN_##name>(get(device, #name)); \
  if (table.name == nullptr) table.name = reinterpret_cast<PFN_##name>(get(device, #alias));
#define KVANT_VK_DEVICE(name, alias)    \
  KVANT_VK_DEVICE_OPTIONAL(name, alias) \
  if (table.name == nullptr) return missing(#name);
#include "vk_functions.def"
  return table;
}

const char* vk_result_name(VkResult result) {
  switch (result) {
#define KVANT_RESULT(name) \
  case name:               \
    return #name;
    KVANT_RESULT(VK_SUCCESS)
    KVANT_RESULT(VK_NOT_READY)
    KVANT_RESULT(VK_TIMEOUT)
    KVANT_RESULT(VK_INCOMPLETE)
    KVANT_RESULT(VK_ERROR_OUT_OF_HOST_MEMORY)
    KVANT_RESULT(VK_ERROR_OUT_OF_DEVICE_MEMORY)
    KVANT_RESULT(VK_ERROR_INITIALIZATION_FAILED)
    KVANT_RESULT(VK_ERROR_DEVICE_LOST)
    KVANT_RESULT(VK_ERROR_MEMORY_MAP_FAILED)
    KVANT_RESULT(VK_ERROR_LAYER_NOT_PRESENT)
    KVANT_RESULT(VK_ERROR_EXTENSION_NOT_PRESENT)
    KVANT_RESULT(VK_ERROR_FEATURE_NOT_PRESENT)
    KVANT_RESULT(VK_ERROR_INCOMPATIBLE_DRIVER)
    KVANT_RESULT(VK_ERROR_TOO_MANY_OBJECTS)
    KVANT_RESULT(VK_ERROR_FRAGMENTED_POOL)
    KVANT_RESULT(VK_ERROR_OUT_OF_POOL_MEMORY)
    KVANT_RESULT(VK_ERROR_FRAGMENTATION)
    KVANT_RESULT(VK_ERROR_INVALID_SHADER_NV)
    KVANT_RESULT(VK_ERROR_UNKNOWN)
#undef KVANT_RESULT
    default:
      return "an unlisted VkResult";
  }
}

Status vk_status(VkResult result, const std::string& what) {
  std::string message = what + " failed: " + vk_result_name(result);
  switch (result) {
    case VK_SUCCESS:
      return {};
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_FRAGMENTED_POOL:
    case VK_ERROR_FRAGMENTATION:
    case VK_ERROR_TOO_MANY_OBJECTS:
    case VK_ERROR_MEMORY_MAP_FAILED:
      return {StatusCode::resource_exhausted, std::move(message)};
    case VK_ERROR_DEVICE_LOST:
      return {StatusCode::data_loss, std::move(message)};
    case VK_ERROR_INCOMPATIBLE_DRIVER:
    case VK_ERROR_INITIALIZATION_FAILED:
      return {StatusCode::unavailable, std::move(message)};
    case VK_ERROR_LAYER_NOT_PRESENT:
    case VK_ERROR_EXTENSION_NOT_PRESENT:
    case VK_ERROR_FEATURE_NOT_PRESENT:
      return {StatusCode::unimplemented, std::move(message)};
    default:
      return {StatusCode::internal, std::move(message)};
  }
}

}  // namespace kvant
