// A module without the code that a pipeline's specialization constants rule out. Modules hold every format, element type and feature of
// attention behind branches on specialization constants; drivers that inline every call before they fold constants take several times as
// long for all of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvant {

// `words`: a module of kernels.def. `spec`: values by constant id; ids beyond it keep the module's defaults. The constants themselves stay,
// to be given to the driver with the same values. Branches that they decide are cut; blocks, functions and local variables that nothing
// reaches any more are gone, with their names.
std::vector<std::uint32_t> prune_module(std::span<const std::uint32_t> words, std::span<const std::uint32_t> spec);

}  // namespace kvant
