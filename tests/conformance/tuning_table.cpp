#include "tuning_table.hpp"

#include "attend_configs.hpp"
#include "formats.hpp"
#include "tuning.hpp"

namespace kvant::conformance {

std::vector<TuningChoice> tuning_table(const DevicePlan& plan) {
  std::vector<TuningChoice> table;
  for (const FormatId format : {FormatId::q4_0, FormatId::q8_0, FormatId::f16})
    for (const std::uint32_t dim : {64u, 128u, 256u})
      for (const std::uint32_t group : {1u, 4u, 8u})
        for (const std::uint32_t queries : {1u, 256u}) {
          AttendShape shape;
          shape.format_k = shape.format_v = static_cast<std::uint32_t>(format);
          shape.head_dim_k = shape.head_dim_v = dim;
          shape.group = group;
          shape.kv_heads = 8;
          shape.max_queries = shape.total_queries = queries;
          shape.max_kv_len = shape.total_kv_len = 4096;
          const AttendConfig config = choose_attend_config(shape, plan);
          table.push_back({std::string(format_info(format).name) + " d" + std::to_string(dim) + " g" +
                               std::to_string(group) + (queries == 1 ? " decode" : " prefill"),
                           std::string(kernel_info(config.kernel).name), config_name(config), config.subgroup_size});
        }
  return table;
}

}  // namespace kvant::conformance
