// The device of a test: the library as a host opens it, skipped with a reason where the machine has no device.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "library.hpp"

// Null (with a message) without a device, unless KVANT_REQUIRE_DEVICE asks for one.
inline std::shared_ptr<kvant::tools::Device> open_test_device(bool may_validate = true, bool profiling = false) {
  using namespace kvant::tools;
  LibraryOptions options;
  options.path = KVANT_LIBRARY_FILE;
  const char* validation = std::getenv("KVANT_VALIDATION");
  options.validation = may_validate && validation != nullptr && std::string(validation) == "1";
  auto library = Library::open(options);
  REQUIRE_MESSAGE(library.ok(), library.failure().message);
  DeviceOptions asked;
  asked.profiling = profiling;
  auto device = Device::open(*library, asked);
  if (device.ok()) {
    return *device;
  }
  const bool required = std::getenv("KVANT_REQUIRE_DEVICE") != nullptr;
  REQUIRE_MESSAGE(!required, device.failure().message);
  MESSAGE("skipped: no Vulkan device (", device.failure().message, ")");
  return nullptr;
}

// No message by which the library, or a layer about the library, complained.
inline void check_quiet(const kvant::tools::Device& device) { CHECK(device.library()->misbehaviour_count() == 0); }
