#include "pipeline_key.hpp"

#include <algorithm>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace kvant {

PipelineKey make_pipeline_key(KernelId kernel, const SpecValues& spec, bool allow_required_size) {
  PipelineKey key;
  key.kernel = kernel;
  const std::uint32_t mask = kernel_info(kernel).spec_mask;
  for (std::size_t i = 0; i < spec.size(); ++i) key.spec[i] = (mask >> i & 1U) != 0 ? spec[i] : 0;
  if (allow_required_size) key.subgroup_size = key.spec[KVANT_SPEC_SUBGROUP_SIZE];
  return key;
}

std::size_t PipelineKeyHash::operator()(const PipelineKey& key) const {
  std::array<std::uint32_t, KVANT_SPEC_COUNT + 2> words{};
  words[0] = static_cast<std::uint32_t>(key.kernel);
  words[1] = key.subgroup_size;
  std::copy(key.spec.begin(), key.spec.end(), words.begin() + 2);
  return static_cast<std::size_t>(XXH3_64bits(words.data(), sizeof(words)));
}

}  // namespace kvant
