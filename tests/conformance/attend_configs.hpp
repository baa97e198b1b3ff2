// The attention modules under test and the configs that each can be forced to run with.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "executor.hpp"

namespace kvant::conformance {

// Every attend_decode* and attend_prefill* row of kernels.def.
std::span<const KernelId> attend_modules();
bool is_prefill(KernelId kernel);
// Integer-dot modules serve only some formats of K.
bool module_takes(KernelId kernel, std::uint32_t format_k);
// What tuning can choose of this module for this shape on some device, in a fixed order.
std::vector<AttendConfig> module_configs(KernelId kernel, const AttendShape& shape);
// "64x4x1x256": local size, heads per tile, queries per item, keys per item.
std::string config_name(const AttendConfig& config);
// The same with all else that tells configs of a module apart, for names of cases: "c64x4x1x256g8t2-0-1".
std::string config_key(const AttendConfig& config);

}  // namespace kvant::conformance
