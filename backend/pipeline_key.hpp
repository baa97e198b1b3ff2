// PipelineKey: what makes one VkPipeline differ from another. Compared by value, never by hash alone.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

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

// The key in words for a person: "attend_decode, local size 64, format K q4_0, ...". Constants that are 0 are left out,
// but for formats and element types, where 0 is one of them.
std::string pipeline_key_text(const PipelineKey& key);

std::optional<KernelId> kernel_named(std::string_view name);

struct PipelineKeyHash {
  std::size_t operator()(const PipelineKey& key) const;
};

}  // namespace kvant
