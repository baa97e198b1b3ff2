// What a case needs of a device and of the build.
#pragma once

#include <string>
#include <vector>

#include "cases.hpp"
#include "device_plan.hpp"

namespace kvant::conformance {

// Kernels that the case is sure to run.
std::vector<KernelId> kernels_of(const Case& c);
// Empty if the case can run; otherwise the exact thing that is missing. By the predicates that the backend itself uses.
std::string missing_for(const Case& c, const DevicePlan& plan);

}  // namespace kvant::conformance
