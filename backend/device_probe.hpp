// Reads a physical device's facts into a DeviceSnapshot. The only reader; decisions are made on the snapshot.
#pragma once

#include "device_snapshot.hpp"
#include "vk_loader.hpp"

namespace kvant {

// `instance_version`: the API version that the instance was created with; the snapshot's is the smaller of the two.
DeviceSnapshot probe_device(const InstanceFunctions& vk, VkPhysicalDevice device, std::uint32_t instance_version);

}  // namespace kvant
