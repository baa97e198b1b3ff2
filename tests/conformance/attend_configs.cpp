#include "attend_configs.hpp"

#include <algorithm>

#include "formats.hpp"
#include "tuning.hpp"
#include "tuning_matrix.hpp"

namespace kvant::conformance {

std::span<const KernelId> attend_modules() {
  static const std::vector<KernelId> kModules = [] {
    std::vector<KernelId> modules;
    for (std::uint16_t i = 0; i < static_cast<std::uint16_t>(KernelId::count); ++i) {
      const auto id = static_cast<KernelId>(i);
      const std::string_view name = kernel_info(id).name;
      if (name.starts_with("attend_decode") || name.starts_with("attend_prefill")) modules.push_back(id);
    }
    return modules;
  }();
  return kModules;
}

bool is_prefill(KernelId kernel) { return kernel_info(kernel).name.starts_with("attend_prefill"); }

bool module_takes(KernelId kernel, std::uint32_t format_k) {
  if (uses_matrices(kernel)) {
    AttendShape shape;
    shape.format_k = shape.format_v = format_k;
    return matrices_take(shape);
  }
  if ((kernel_info(kernel).needs & kernel_needs_int_dot) == 0) return true;
  const auto format = format_from_id(format_k);
  return format && format_info(*format).int_dot;
}

std::vector<AttendConfig> module_configs(KernelId kernel, const AttendShape& shape) {
  std::vector<AttendConfig> configs;
  for (const AttendConfig& config : all_attend_configs(shape))
    if (config.kernel == kernel) configs.push_back(config);
  return configs;
}

std::string config_name(const AttendConfig& config) {
  return std::to_string(config.local_size) + "x" + std::to_string(config.heads_per_tile) + "x" +
         std::to_string(config.queries_per_item) + "x" + std::to_string(config.kv_per_item);
}

std::string config_key(const AttendConfig& config) {
  std::string key = "c" + config_name(config);
  if (config.subgroup_size != 0) key += "g" + std::to_string(config.subgroup_size);
  if (config.tune == decltype(config.tune){}) return key;
  const std::size_t count = config.tune.back() == 0 ? config.tune.size() - 1 : config.tune.size();
  for (std::size_t i = 0; i < count; ++i) key += (i == 0 ? "t" : "-") + std::to_string(config.tune[i]);
  return key;
}

}  // namespace kvant::conformance
