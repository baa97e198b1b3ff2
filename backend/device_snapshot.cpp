#include "device_snapshot.hpp"

#include <algorithm>

namespace kvant {

std::string_view device_type_name(DeviceType type) {
  switch (type) {
    case DeviceType::integrated:
      return "integrated";
    case DeviceType::discrete:
      return "discrete";
    case DeviceType::virtual_gpu:
      return "virtual";
    case DeviceType::cpu:
      return "cpu";
    case DeviceType::other:
      break;
  }
  return "other";
}

bool DeviceSnapshot::has_extension(std::string_view extension) const {
  return std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
}

std::string version_text(std::uint32_t api_version) {
  return std::to_string(api_version >> 22 & 0x7F) + "." + std::to_string(api_version >> 12 & 0x3FF) + "." +
         std::to_string(api_version & 0xFFF);
}

}  // namespace kvant
