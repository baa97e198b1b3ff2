// Quirks: rows of known driver faults and what the plan does about them. The one place for correctness by vendor or
// driver; every row can be forced on or off by name, so that both ways can be tested on any machine.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "device_snapshot.hpp"
#include "status.hpp"

namespace kvant {

struct DevicePlan;

struct Quirk {
  std::uint32_t id;
  std::string_view name;
  std::string_view why;
  std::string_view url;
  std::string_view driver_range;  // in words
  bool (*applies)(const DeviceSnapshot& snapshot);
  void (*effect)(DevicePlan& plan);
};

std::span<const Quirk> quirks();

// The rows that act on this device, in table order, after `forced` ("+name,-name"; empty: none).
// Errors: invalid_argument for an unknown name or a missing sign.
Result<std::vector<const Quirk*>> resolve_quirks(const DeviceSnapshot& snapshot, std::string_view forced);

}  // namespace kvant
