// device_count, device_info, device_open, device_close, device_describe.
#include "api.hpp"
#include "boundary.hpp"
#include "device_options.hpp"
#include "objects.hpp"

namespace kvant::abi {

Result<DeviceOptions> read_device_options(const kvant_device_args* args, std::string_view name, std::uint32_t& device_index) {
  DeviceOptions options;
  device_index = KVANT_DEVICE_BEST;
  if (args == nullptr) return options;
  kvant_device_args values{};
  KVANT_TRY(read_args(args, name, values));
  if (values.enable_profiling > 1) return invalid(name, ".enable_profiling (", values.enable_profiling, ") is not 0 or 1");
  device_index = values.device_index;
  options.profiling = values.enable_profiling != 0;
  options.memory_limit = values.memory_limit;
  if (values.capability_override != nullptr) options.capability_override = values.capability_override;
  if (values.quirks != nullptr) options.quirks = values.quirks;
  if (values.pipeline_cache_folder != nullptr) options.pipeline_cache_folder = values.pipeline_cache_folder;
  return options;
}

Result<kvant_device*> add_device(const std::shared_ptr<ContextObject>& context, std::unique_ptr<DeviceContext> device,
                                 const DeviceOptions& options, bool borrowed) {
  auto object = std::make_shared<DeviceObject>(context);
  object->device = std::move(device);
  object->facts = describe_plan(object->device->plan());
  object->profiling = options.profiling;
  object->borrowed = borrowed;
  return add(object);
}

kvant_error* device_count(kvant_context* context, std::uint32_t* out_count) {
  return guard("device_count", [&]() -> Status {
    KVANT_ASSIGN(const auto object, find<ContextObject>(context, "context"));
    KVANT_TRY(check_pointer(out_count, "out_count", "a place for the number of devices"));
    *out_count = static_cast<std::uint32_t>(object->devices.size());
    return {};
  });
}

kvant_error* device_info(kvant_context* context, std::uint32_t device_index, kvant_device_info* info) {
  return guard("device_info", [&]() -> Status {
    KVANT_ASSIGN(const auto object, find<ContextObject>(context, "context"));
    KVANT_TRY(check_output(info, "info"));
    if (device_index >= object->devices.size())
      return invalid("device_index (", device_index, ") is not less than the number of devices found (", object->devices.size(), ")");
    write_struct(info, device_info_values(object->devices[device_index]));
    return {};
  });
}

kvant_error* device_open(kvant_context* context, const kvant_device_args* args, kvant_device** out_device) {
  return guard("device_open", [&]() -> Status {
    KVANT_ASSIGN(const auto object, find<ContextObject>(context, "context"));
    KVANT_TRY(check_pointer(out_device, "out_device", "a place for the device"));
    std::uint32_t index = 0;
    KVANT_ASSIGN(const DeviceOptions options, read_device_options(args, "args", index));
    if (object->instance == nullptr) return object->instance_status;
    if (index == KVANT_DEVICE_BEST) {
      KVANT_ASSIGN(index, object->instance->best_device());
    }
    if (object->devices.empty()) return Status{StatusCode::unavailable, "no Vulkan driver on this machine offers a device"};
    if (index >= object->devices.size())
      return invalid("args.device_index (", index, ") is not less than the number of devices found (", object->devices.size(), ")");
    KVANT_ASSIGN(auto device, object->instance->open(index, options));
    KVANT_ASSIGN(*out_device, add_device(object, std::move(device), options, false));
    return {};
  });
}

void device_close(kvant_device* device) {
  guard_void([&] { destroy_device(device); });
}

kvant_error* device_describe(kvant_device* device, kvant_device_info* info) {
  return guard("device_describe", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_TRY(check_output(info, "info"));
    write_struct(info, device_info_values(object->facts));
    return {};
  });
}

}  // namespace kvant::abi
