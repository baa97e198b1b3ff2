// What device_open and the Vulkan extension's device_import share.
#pragma once

#include <memory>
#include <string_view>

#include "objects.hpp"

namespace kvant::abi {

// NULL gives the defaults and KVANT_DEVICE_BEST.
Result<DeviceOptions> read_device_options(const kvant_device_args* args, std::string_view name, std::uint32_t& device_index);

Result<kvant_device*> add_device(const std::shared_ptr<ContextObject>& context, std::unique_ptr<DeviceContext> device,
                                 const DeviceOptions& options, bool borrowed);

}  // namespace kvant::abi
