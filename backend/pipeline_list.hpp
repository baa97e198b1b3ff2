// PipelineList: what a process leaves on disk for the next one's pipelines: the keys of those that it used, and the bytes of its
// VkPipelineCache. The payload of a PipelineBlob.
//
// Layout: u32 count; per key u8 length and the kernel's name, u32[KVANT_SPEC_COUNT] constants; then the driver's bytes. Little-endian. The blob's header has said whose it is and that it is whole; what breaks the layout is a miss all the same.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "pipeline_key.hpp"

namespace kvant {

// So many keys are kept: those of this process first, then those that earlier ones had.
inline constexpr std::size_t kMostListedPipelines = 128;

struct PipelineList {
  std::vector<PipelineKey> keys;       // in the order of first use; subgroup_size 0, as it follows from the constants
  std::vector<std::byte> driver_data;
};

std::vector<std::byte> encode_pipelines(const PipelineList& list);
std::optional<PipelineList> decode_pipelines(std::span<const std::byte> payload);

// `used` and behind it what else `earlier` has, up to kMostListedPipelines.
std::vector<PipelineKey> merge_keys(std::span<const PipelineKey> used, std::span<const PipelineKey> earlier);

}  // namespace kvant
