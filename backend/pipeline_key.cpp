#include "pipeline_key.hpp"

#include <algorithm>
#include <iterator>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace kvant {
namespace {

constexpr const char* kSpecNames[] = {
    "local size",    "format K",       "format V",         "head dim K",    "head dim V",    "page tokens",
    "input type",    "output type",    "feature flags",    "heads per tile", "queries per item", "keys per item",
    "subgroup size", "tune 0",         "tune 1",           "tune 2",        "tune 3"};
static_assert(std::size(kSpecNames) == KVANT_SPEC_COUNT);

std::string format_name(std::uint32_t format) {
  switch (format) {
#define KVANT_FORMAT(symbol, id, block, code_bits, high_bits, scale_bytes, row_pad, int_dot) \
  case id:                                                                                 \
    return #symbol;
#include "formats.def"
#undef KVANT_FORMAT
    default:
      return std::to_string(format);
  }
}

std::string io_type_name(std::uint32_t type) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16"};
  return type < std::size(kNames) ? kNames[type] : std::to_string(type);
}

}  // namespace

PipelineKey make_pipeline_key(KernelId kernel, const SpecValues& spec, bool allow_required_size) {
  PipelineKey key;
  key.kernel = kernel;
  const std::uint32_t mask = kernel_info(kernel).spec_mask;
  for (std::size_t i = 0; i < spec.size(); ++i) key.spec[i] = (mask >> i & 1U) != 0 ? spec[i] : 0;
  if (allow_required_size) key.subgroup_size = key.spec[KVANT_SPEC_SUBGROUP_SIZE];
  return key;
}

std::string pipeline_key_text(const PipelineKey& key) {
  std::string text(kernel_info(key.kernel).name);
  for (std::uint32_t i = 0; i < KVANT_SPEC_COUNT; ++i) {
    if ((kernel_info(key.kernel).spec_mask >> i & 1U) == 0) continue;
    const bool format = i == KVANT_SPEC_FORMAT_K || i == KVANT_SPEC_FORMAT_V;
    const bool io_type = i == KVANT_SPEC_IO_TYPE_IN || i == KVANT_SPEC_IO_TYPE_OUT;
    if (key.spec[i] == 0 && !format && !io_type) continue;
    text += std::string(", ") + kSpecNames[i] + ' ';
    text += format ? format_name(key.spec[i]) : io_type ? io_type_name(key.spec[i]) : std::to_string(key.spec[i]);
  }
  return text;
}

std::optional<KernelId> kernel_named(std::string_view name) {
  for (std::uint16_t i = 0; i < static_cast<std::uint16_t>(KernelId::count); ++i)
    if (kernel_info(static_cast<KernelId>(i)).name == name) return static_cast<KernelId>(i);
  return std::nullopt;
}

std::size_t PipelineKeyHash::operator()(const PipelineKey& key) const {
  std::array<std::uint32_t, KVANT_SPEC_COUNT + 2> words{};
  words[0] = static_cast<std::uint32_t>(key.kernel);
  words[1] = key.subgroup_size;
  std::copy(key.spec.begin(), key.spec.end(), words.begin() + 2);
  return static_cast<std::size_t>(XXH3_64bits(words.data(), sizeof(words)));
}

}  // namespace kvant
