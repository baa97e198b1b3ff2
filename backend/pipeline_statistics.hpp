// What a driver's compiler says of one pipeline (registers, spills, occupancy), for tests and tuning that have no
// hardware.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "executor.hpp"

namespace kvant {

class DeviceContext;

struct PipelineStatistic {
  std::string executable;  // "compute", as the driver calls it
  std::string name;        // "VGPRs", "Spilled SGPRs", ...
  double value = 0.0;
};

// Compiles the kernel with these constants, outside the pipeline cache, and returns the driver's figures.
// `subgroup_size` is required of the compiler when it is not 0 and the device allows that. Nothing is executed. Errors:
// unimplemented where VK_KHR_pipeline_executable_properties is missing; else as a pipeline's creation.
Result<std::vector<PipelineStatistic>> compile_statistics(DeviceContext& context, KernelId kernel,
                                                          const SpecValues& spec, std::uint32_t subgroup_size);

}  // namespace kvant
