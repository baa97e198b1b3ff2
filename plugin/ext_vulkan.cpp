// Extension kvant.vulkan/1: kvant inside the engine's own Vulkan device.
#include "api.hpp"
#include "boundary.hpp"
#include "device_options.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

Status check_handles(const kvant_vulkan_device_args& values) {
  KVANT_TRY(check_pointer(values.get_instance_proc_addr, "args.get_instance_proc_addr", "a PFN_vkGetInstanceProcAddr"));
  KVANT_TRY(check_pointer(values.instance, "args.instance", "a VkInstance"));
  KVANT_TRY(check_pointer(values.physical_device, "args.physical_device", "a VkPhysicalDevice"));
  KVANT_TRY(check_pointer(values.device, "args.device", "a VkDevice"));
  if (values.reserved != 0) return invalid("args.reserved (", values.reserved, ") is not 0");
  if ((values.lock_queue == nullptr) != (values.unlock_queue == nullptr))
    return invalid("args.", values.lock_queue == nullptr ? "lock_queue" : "unlock_queue",
                   " is NULL although its counterpart is given");
  return {};
}

Result<BorrowedDevice> read_borrowed(const kvant_vulkan_device_args& values) {
  constexpr std::uint32_t kMaxExtensions = 4096;
  KVANT_TRY(check_handles(values));
  BorrowedDevice device;
  if (values.enabled_extension_count > kMaxExtensions)
    return invalid("args.enabled_extension_count (", values.enabled_extension_count, ") is greater than ", kMaxExtensions);
  if (values.enabled_extension_count != 0)
    KVANT_TRY(check_pointer(values.enabled_extensions, "args.enabled_extensions",
                            text(values.enabled_extension_count, " names")));
  for (std::uint32_t i = 0; i < values.enabled_extension_count; ++i) {
    KVANT_TRY(check_pointer(values.enabled_extensions[i], text("args.enabled_extensions[", i, "]"), "a name"));
    device.enabled_extensions.emplace_back(values.enabled_extensions[i]);
  }
  device.get_instance_proc_addr = values.get_instance_proc_addr;
  device.instance = values.instance;
  device.physical_device = values.physical_device;
  device.device = values.device;
  device.queue_family = values.queue_family;
  device.queue_index = values.queue_index;
  device.enabled_features = values.enabled_features;
  device.lock_queue = values.lock_queue;
  device.unlock_queue = values.unlock_queue;
  device.user_data = values.user_data;
  return device;
}

}  // namespace

const char* vulkan_recommended(kvant_context* context) {
  const char* json = nullptr;
  guard_void([&] {
    const auto object = find<ContextObject>(context, "context");
    if (object.ok()) json = object.value()->recommended.c_str();
  });
  return json;
}

kvant_error* vulkan_device_import(kvant_context* context, const kvant_vulkan_device_args* args, kvant_device** out_device) {
  return guard("device_import", [&]() -> Status {
    KVANT_ASSIGN(const auto object, find<ContextObject>(context, "context"));
    KVANT_TRY(check_pointer(out_device, "out_device", "a place for the device"));
    kvant_vulkan_device_args values{};
    KVANT_TRY(read_args(args, "args", values));
    KVANT_ASSIGN(const BorrowedDevice borrowed, read_borrowed(values));
    std::uint32_t ignored_index = 0;
    KVANT_ASSIGN(const DeviceOptions options, read_device_options(values.options, "args.options", ignored_index));
    KVANT_ASSIGN(auto device, borrow_device(borrowed, options, object->instance_options()));
    KVANT_ASSIGN(*out_device, add_device(object, std::move(device), options, true));
    return {};
  });
}

kvant_error* vulkan_device_timeline(kvant_device* device, std::uint64_t* out_semaphore, std::uint64_t* out_value) {
  return guard("device_timeline", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_TRY(check_pointer(out_semaphore, "out_semaphore", "a place for the semaphore"));
    KVANT_TRY(check_pointer(out_value, "out_value", "a place for the value"));
    const DeviceContext::TimelinePoint point = object->device->timeline();
    *out_semaphore = point.semaphore;
    *out_value = point.value;
    return {};
  });
}

kvant_error* vulkan_device_wait(kvant_device* device) {
  return guard("device_wait", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    return object->device->wait_all();
  });
}

constexpr kvant_ext_vulkan kVulkanApi = {
    .struct_size = sizeof(kvant_ext_vulkan),
    .recommended = vulkan_recommended,
    .device_import = vulkan_device_import,
    .device_timeline = vulkan_device_timeline,
    .device_wait = vulkan_device_wait,
};

}  // namespace kvant::abi
