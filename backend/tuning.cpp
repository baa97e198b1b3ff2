// Tuning of the attention and page kernels by device type, limits and shape. The figures behind the choices:
// docs/kernels.md.
#include "tuning.hpp"

#include <algorithm>
#include <bit>
#include <cassert>

#include "kernel_table.hpp"
#include "tuning_matrix.hpp"
#include "tuning_rules.hpp"

namespace kvant {
namespace {

using tuning::divide_up;
using tuning::round_up;
using tuning::set_rows;
using tuning::spans;

constexpr std::uint32_t kFloorSharedBytes = 16384;  // what tier 0 guarantees
constexpr std::uint32_t kFloorInvocations = 256;
constexpr std::uint32_t kMostInvocations = 4096;  // more than any device has in a workgroup
constexpr std::uint32_t kRows = 4;
constexpr std::uint32_t kGpuRows = 2;   // four take 200 registers and more: too few waves, and spills on some drivers
constexpr std::uint32_t kLoopRows = 2;  // a loop keeps Q and the sums of V in registers at once: more rows would spill

bool format_has_integer_codes(std::uint32_t format) {
  switch (format) {
#define KVANT_FORMAT(symbol, id, block, code_bits, high_bits, scale_bytes, row_pad, int_dot) \
  case id:                                                                                 \
    return int_dot != 0;
#include "formats.def"
#undef KVANT_FORMAT
    default:
      return false;
  }
}

bool is_attend_kernel(KernelId kernel) {
  switch (kernel) {
    case KernelId::attend_decode:
    case KernelId::attend_decode_sg:
    case KernelId::attend_decode_f16:
    case KernelId::attend_decode_dot8:
    case KernelId::attend_prefill:
    case KernelId::attend_prefill_sg:
    case KernelId::attend_prefill_f16:
    case KernelId::attend_prefill_cm1:
      return true;
    default:
      return false;
  }
}

bool uses_subgroups(KernelId kernel) {
  return kernel == KernelId::attend_decode_sg || kernel == KernelId::attend_prefill_sg;
}

// How a device likes its work cut; choose_attend_config and all_attend_configs differ only in where these come from.
struct Style {
  KernelId kernel = KernelId::attend_decode;
  std::uint32_t local_size = 64;
  std::uint32_t subgroup_size = 0;
  std::uint32_t most_rows = kRows;
  std::uint32_t most_k_lanes = 4;
  std::uint32_t most_chunk = 512;
  std::uint32_t shared_bytes = kFloorSharedBytes;
  std::uint32_t parallel_workgroups = 1;
  std::uint32_t touch = 0;
};

// The largest rows, then the largest chunk, that shared memory holds; fewer lanes only if nothing else helps. The chunk
// does not follow the sequence's length: a growing sequence must not need a new pipeline.
void fit_shared_memory(AttendConfig& config, const AttendShape& shape, const Style& style) {
  const std::uint32_t granule = std::max(8U, style.subgroup_size);
  const std::uint32_t fewest = round_up(config.tune[kTuneVLanes], granule);
  for (config.local_size = std::max(style.local_size, fewest);;) {
    for (std::uint32_t rows = std::min(style.most_rows, kMaxAttendRows); rows != 0; rows /= 2) {
      set_rows(config, shape, rows);
      for (std::uint32_t chunk = style.most_chunk; chunk >= 64; chunk /= 2) {
        config.tune[kTuneChunk] = chunk;
        if (attend_shared_bytes(config, shape) <= style.shared_bytes) return;
      }
    }
    if (config.local_size == fewest) return;
    config.local_size = std::max(fewest, round_up(config.local_size / 2, granule));
  }
}

AttendConfig make_config(const AttendShape& shape, const Style& style) {
  AttendConfig config;
  config.kernel = style.kernel;
  config.subgroup_size = style.subgroup_size;
  config.tune[kTuneKLanes] = std::min(std::bit_ceil(spans(shape.head_dim_k)), style.most_k_lanes);
  config.tune[kTuneVLanes] = spans(shape.head_dim_v);
  config.tune[kTuneTouch] = style.touch;
  if (uses_subgroups(style.kernel)) {
    config.tune[kTuneKLanes] = std::min(config.tune[kTuneKLanes], style.subgroup_size);
    config.tune[kTuneVLanes] = std::bit_ceil(config.tune[kTuneVLanes]);
  }
  fit_shared_memory(config, shape, style);
  config.kv_per_item = attend_kernel_loops(style.kernel) ? 0 : config.tune[kTuneChunk];
  cut_items(config, shape, style.parallel_workgroups);
  return config;
}

// llvmpipe since Mesa 26 (older ones down to 23 were not measured) makes one instruction of a shuffle: then a workgroup is
// one vector of lanes, four of which share a row, so that a line of memory is fetched once.
bool shuffles_cheaply(const DeviceSnapshot& snapshot) {
  constexpr std::uint32_t kLlvmpipe = 13, kMesa26 = 26u << 22;  // VkDriverId, VK_MAKE_API_VERSION
  return snapshot.driver_id == kLlvmpipe && snapshot.driver_version >= kMesa26;
}

Style style_of(const AttendShape& shape, const DevicePlan& plan) {
  const bool many_queries = shape.max_queries >= 8;
  const auto can = [&](KernelId kernel) { return kernel_available(kernel, plan); };
  Style style;
  style.shared_bytes = std::min<std::uint32_t>(plan.snapshot.max_shared_bytes, 32768);
  style.parallel_workgroups = plan.parallel_workgroups;
  style.kernel = many_queries ? KernelId::attend_prefill : KernelId::attend_decode;
  if (plan.snapshot.type == DeviceType::cpu) {
    // A CPU driver runs a workgroup's lanes one vector after another: few lanes, long chunks, no loop around barriers,
    // and no planes of scores that would shorten the chunk.
    style.local_size = 16;
    style.most_k_lanes = 1;
    style.most_chunk = 1024;
    if (!many_queries && shuffles_cheaply(plan.snapshot) && can(KernelId::attend_decode_sg)) {
      style.kernel = KernelId::attend_decode_sg;
      style.local_size = style.subgroup_size = plan.subgroup_size;
      style.most_k_lanes = 4;
      style.touch = 1;
    }
    return style;
  }
  if (!many_queries && plan.snapshot.int_dot_accelerated && format_has_integer_codes(shape.format_k) &&
      can(KernelId::attend_decode_dot8)) {
    style.kernel = KernelId::attend_decode_dot8;
  } else if (!many_queries && can(KernelId::attend_decode_sg)) {
    style.kernel = KernelId::attend_decode_sg;
    style.subgroup_size = plan.subgroup_size;
    style.most_k_lanes = 8;
  } else if (!many_queries && can(KernelId::attend_decode_f16)) {
    style.kernel = KernelId::attend_decode_f16;
  }
  style.local_size = std::max(128U, style.subgroup_size);
  style.most_rows = kGpuRows;
  style.most_chunk = 1024;
  return style;
}

}  // namespace

void cut_items(AttendConfig& config, const AttendShape& shape, std::uint32_t workgroups) {
  const bool loops = attend_kernel_loops(config.kernel);
  const std::uint32_t chunk = config.tune[kTuneChunk];
  const std::uint32_t shortest = std::max(shape.page_tokens, uses_matrices(config.kernel) ? 128U : std::min(128U, chunk));
  tuning::set_split(config, shape, workgroups, shortest, loops ? shape.max_kv_len : chunk);
  if (!loops) config.kv_split = std::min(config.kv_split, config.kv_per_item);
}

bool attend_kernel_loops(KernelId kernel) {
  return kernel == KernelId::attend_prefill_sg || kernel == KernelId::attend_prefill_f16 || uses_matrices(kernel);
}

std::uint64_t attend_shared_bytes(const AttendConfig& config, const AttendShape& shape) {
  if (uses_matrices(config.kernel)) return matrix_shared_bytes(config, shape);
  const std::uint64_t rows = std::uint64_t{config.heads_per_tile} * config.queries_per_item;
  const std::uint64_t k_lanes = config.tune[kTuneKLanes], v_lanes = config.tune[kTuneVLanes];
  const bool sg = uses_subgroups(config.kernel);
  const bool adds_up = sg && std::has_single_bit(v_lanes);
  const std::uint64_t unit = adds_up ? std::max<std::uint64_t>(v_lanes, config.subgroup_size) : v_lanes;
  const std::uint64_t score_words = (sg ? 1 : k_lanes) * rows * (config.tune[kTuneChunk] / 4);
  const std::uint64_t sum_words = config.local_size / unit * v_lanes * 8;
  const std::uint64_t words16 = std::max(score_words, sum_words) + rows * spans(shape.head_dim_k) * 8;
  return words16 * 16 + (config.local_size + rows * 4) * 4;
}

bool attend_config_consistent(const AttendConfig& config, const AttendShape& shape) {
  // Bounds first: configs come out of files as well, and what follows multiplies them.
  if (!is_attend_kernel(config.kernel) || config.local_size == 0 || config.local_size > kMostInvocations) return false;
  if (config.heads_per_tile == 0 || config.heads_per_tile > shape.group) return false;
  if (config.queries_per_item == 0 || std::uint64_t{config.heads_per_tile} * config.queries_per_item > kMostInvocations) return false;
  if (uses_matrices(config.kernel)) return matrix_config_consistent(config, shape);
  const std::uint32_t rows = config.heads_per_tile * config.queries_per_item;
  if (rows > kMaxAttendRows || rows > config.local_size) return false;
  const std::uint32_t k_lanes = config.tune[kTuneKLanes], v_lanes = config.tune[kTuneVLanes];
  if (!std::has_single_bit(k_lanes) || k_lanes > config.local_size) return false;
  if (v_lanes < spans(shape.head_dim_v) || v_lanes > config.local_size) return false;
  if (uses_subgroups(config.kernel)) {
    if (!std::has_single_bit(config.subgroup_size) || config.subgroup_size > 128) return false;
    if (k_lanes > config.subgroup_size || k_lanes > 32 || config.local_size % config.subgroup_size != 0) return false;
  } else if (config.subgroup_size != 0) {
    return false;
  }
  if (config.tune[kTuneTouch] > (config.kernel == KernelId::attend_decode_sg ? 1 : 0)) return false;
  const std::uint32_t chunk = config.tune[kTuneChunk];
  if (chunk == 0 || chunk % shape.page_tokens != 0) return false;
  if (config.kv_split == 0 || config.kv_split % shape.page_tokens != 0) return false;
  if (attend_kernel_loops(config.kernel)) return config.kv_per_item == 0;
  return config.kv_per_item == chunk && config.kv_split <= chunk;
}

bool attend_config_valid(const AttendConfig& config, const AttendShape& shape, const DevicePlan& plan) {
  const DeviceSnapshot& s = plan.snapshot;
  if (!attend_config_consistent(config, shape) || !kernel_available(config.kernel, plan)) return false;
  if (config.local_size > s.max_invocations || config.local_size > s.max_local_size[0]) return false;
  if (attend_shared_bytes(config, shape) > s.max_shared_bytes) return false;
  if (!uses_subgroups(config.kernel) && !uses_matrices(config.kernel)) return true;
  if (uses_matrices(config.kernel) && !has_matrix_shape(s, matrix_shape_of(config))) return false;
  if (!plan.require_subgroup_size) return config.subgroup_size == plan.subgroup_size;
  return config.subgroup_size >= s.subgroup_min_size && config.subgroup_size <= s.subgroup_max_size &&
         config.local_size / config.subgroup_size <= s.max_workgroup_subgroups;
}

AttendConfig choose_attend_config(const AttendShape& shape, const DevicePlan& plan) {
  if (const auto matrices = choose_matrix_config(shape, plan)) return *matrices;
  const AttendConfig config = make_config(shape, style_of(shape, plan));
  assert(attend_config_consistent(config, shape));
  return config;
}

std::vector<AttendConfig> all_attend_configs(const AttendShape& shape) {
  std::vector<AttendConfig> configs;
  const auto add = [&](const Style& style) {
    const AttendConfig config = make_config(shape, style);
    if (attend_config_consistent(config, shape)) configs.push_back(config);
  };
  for (const KernelId kernel :
       {KernelId::attend_decode, KernelId::attend_prefill, KernelId::attend_decode_f16, KernelId::attend_prefill_f16,
        KernelId::attend_decode_dot8, KernelId::attend_decode_sg, KernelId::attend_prefill_sg}) {
    const bool loops = attend_kernel_loops(kernel);
    const std::uint32_t rows = loops ? kLoopRows : kRows;
    const std::uint32_t gpu_rows = std::min(rows, kGpuRows);
    if (!uses_subgroups(kernel)) {
      // The CPU style, then the GPU style, each with one workgroup's worth of parallelism and with many.
      if (loops) {
        add({.kernel = kernel, .local_size = 64, .most_rows = rows, .most_chunk = 128});
      } else {
        add({.kernel = kernel, .local_size = 16, .most_rows = rows, .most_k_lanes = 1, .most_chunk = 1024,
             .shared_bytes = 32768});
      }
      add({.kernel = kernel, .local_size = 128, .most_rows = gpu_rows, .most_chunk = 256, .parallel_workgroups = 512});
      continue;
    }
    for (const std::uint32_t size : {4U, 8U, 16U, 32U, 64U, 128U}) {
      add({.kernel = kernel, .local_size = std::max(64U, size), .subgroup_size = size, .most_rows = rows,
           .most_k_lanes = 4, .most_chunk = 64});
      add({.kernel = kernel, .local_size = 128, .subgroup_size = size, .most_rows = gpu_rows, .most_k_lanes = 8,
           .most_chunk = 256, .parallel_workgroups = 512});
      // A CPU driver's: one vector of lanes.
      if (!loops && size <= 16)
        add({.kernel = kernel, .local_size = size, .subgroup_size = size, .most_rows = rows, .most_k_lanes = 4,
             .most_chunk = 1024, .shared_bytes = 32768, .touch = 1});
    }
  }
  const std::vector<AttendConfig> matrices = all_matrix_configs(shape);
  configs.insert(configs.end(), matrices.begin(), matrices.end());
  return configs;
}

std::vector<AttendConfig> all_attend_configs(const AttendShape& shape, const DevicePlan& plan) {
  std::vector<AttendConfig> configs = all_attend_configs(shape);
  std::erase_if(configs, [&](const AttendConfig& config) { return !attend_config_valid(config, shape, plan); });
  return configs;
}

PageKernelConfig choose_page_kernel_config(KernelId, const DevicePlan& plan) {
  return {.local_size = std::min({64U, plan.snapshot.max_invocations, kFloorInvocations})};
}

}  // namespace kvant
