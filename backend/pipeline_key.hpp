// PipelineKey: what makes one VkPipeline differ from another. Compared by value, never by hash alone.
#pragma once

#include <cstddef>

#include "executor.hpp"

namespace kvant {

struct PipelineKey {
  KernelId kernel{};
  std::uint32_t subgroup_size = 0;  // required size; 0: the driver's choice
  SpecValues spec{};                // zero where the module declares no such constant

  bool operator==(const PipelineKey&) const = default;
};

// Keeps only the constants that the module declares, so that values it ignores make no second pipeline.
// `allow_required_size`: the device can be asked for a subgroup size.
PipelineKey make_pipeline_key(KernelId kernel, const SpecValues& spec, bool allow_required_size);

struct PipelineKeyHash {
  std::size_t operator()(const PipelineKey& key) const;
};

}  // namespace kvant
