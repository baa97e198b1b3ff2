#include "tuning_matrix.hpp"

#include <algorithm>
#include <bit>
#include <string_view>
#include <utility>

#include "tuning.hpp"
#include "tuning_rules.hpp"

namespace kvant {
namespace {

using tuning::divide_up;
using tuning::round_up;
using tuning::spans;

constexpr std::uint32_t kMostRows = 64;
constexpr std::uint32_t kMostSubgroups = 4;
constexpr std::uint32_t kMostHeadDim = 256;  // the sums of V stay in registers
constexpr std::uint32_t kMostChunk = 64;
constexpr std::uint32_t kSmall = 32768, kLarge = 49152;  // shared memory of what drivers say
constexpr std::uint32_t kIntelSums = 4096;            // bytes of sums a subgroup: half of the registers of a thread

bool fits_fp16(std::uint32_t format) {
  switch (format) {
#define KVANT_FORMAT(symbol, id, block, code_bits, high_bits, scale_bytes, row_pad, int_dot) \
  case id:                                                                                 \
    return (code_bits) < 16 || std::string_view(#symbol) == "f16";
#include "formats.def"
#undef KVANT_FORMAT
    default:
      return false;
  }
}

// Products that drivers list, with those drivers' subgroup sizes: what is not here has no conformance case, and is not chosen.
struct Known {
  MatrixShape product;
  std::uint32_t subgroup_size;
  bool chosen = true;             // false: it runs on processors, or on GPUs that are no faster by it
  std::uint32_t sums_bytes = 0;   // of V a subgroup may have in registers; 0: what the head sizes need
};
constexpr Known kKnown[] = {
    {{8, 8, 8}, 8, false},                            // lavapipe; first, since it is executed wherever the suite is
    {{16, 16, 16}, 32}, {{16, 16, 16}, 64},           // NVIDIA, AMD RDNA 3 and 4
    {{16, 8, 16}, 32},                                // NVIDIA
    {{8, 16, 16}, 16, true, kIntelSums}, {{8, 16, 16}, 32, true, kIntelSums},  // Intel Xe2
    {{8, 8, 16}, 16, false, kIntelSums}, {{8, 8, 16}, 32, false, kIntelSums},  // Intel before
};

// Rows of a subgroup, whole tiles.
std::uint32_t subgroup_rows(const AttendConfig& config) {
  const std::uint32_t m = config.tune[kTuneMatrixM], subgroups = config.local_size / config.subgroup_size;
  return divide_up(config.heads_per_tile * config.queries_per_item, subgroups * m) * m;
}

// Nothing where shared memory or registers cannot hold the smallest tiles.
std::optional<AttendConfig> make_matrix_config(const AttendShape& shape, const Known& known, std::uint32_t shared_bytes,
                                               std::uint32_t parallel_workgroups) {
  AttendConfig config;
  config.kernel = KernelId::attend_prefill_cm1;
  config.subgroup_size = known.subgroup_size;
  config.kv_per_item = 0;
  config.tune[kTuneMatrixM] = known.product.m;
  config.tune[kTuneMatrixN] = known.product.n;
  config.tune[kTuneMatrixK] = known.product.k;
  const std::uint32_t wanted = std::min(kMostRows, std::max(shape.max_queries, 1U) * shape.group);
  for (std::uint32_t rows = std::bit_ceil(std::max(wanted, known.product.m)); rows >= known.product.m; rows /= 2) {
    // As many rows a subgroup as have lanes and registers, up to two tiles.
    const std::uint32_t row_bytes = spans(shape.head_dim_v) * 32 * 4;
    const std::uint32_t registers = known.sums_bytes == 0 ? kMostRows : std::bit_floor(known.sums_bytes / row_bytes);
    const std::uint32_t each =
        std::min({known.product.m * 2, known.subgroup_size, registers, std::max(rows / kMostSubgroups, known.product.m)});
    if (each < known.product.m) return std::nullopt;
    const std::uint32_t subgroups = std::clamp(rows / each, 1U, kMostSubgroups);
    tuning::set_rows(config, shape, std::min(rows, subgroups * each));
    config.local_size = subgroups * known.subgroup_size;
    for (std::uint32_t chunk = kMostChunk; chunk >= 32; chunk /= 2) {
      config.tune[kTuneChunk] = chunk;
      if (chunk % shape.page_tokens != 0 || matrix_shared_bytes(config, shape) > shared_bytes) continue;
      cut_items(config, shape, parallel_workgroups);
      if (matrix_config_consistent(config, shape)) return config;
    }
  }
  return std::nullopt;
}

}  // namespace

bool uses_matrices(KernelId kernel) { return kernel == KernelId::attend_prefill_cm1; }

MatrixShape matrix_shape_of(const AttendConfig& config) {
  return {config.tune[kTuneMatrixM], config.tune[kTuneMatrixN], config.tune[kTuneMatrixK]};
}

bool matrices_take(const AttendShape& shape) {
  return !shape.scored && shape.head_dim_k <= kMostHeadDim && shape.head_dim_v <= kMostHeadDim &&
         fits_fp16(shape.format_k) && fits_fp16(shape.format_v);
}

std::uint64_t matrix_shared_bytes(const AttendConfig& config, const AttendShape& shape) {
  const std::uint64_t rows = std::uint64_t{config.local_size / config.subgroup_size} * subgroup_rows(config);
  const std::uint64_t groups = config.tune[kTuneChunk] / 4;
  const std::uint64_t most_spans = std::max(spans(shape.head_dim_k), spans(shape.head_dim_v));
  const std::uint64_t halves = rows * (spans(shape.head_dim_k) * 8 + 2) +       // Q
                               config.tune[kTuneChunk] * (most_spans * 8 + 2) +  // K or V
                               rows * (groups + 2);                             // weights
  return halves * 8 + rows * (groups + 1) * 16 + (config.local_size + rows * 2) * 4 +
         round_up(config.tune[kTuneChunk] / shape.page_tokens, 4) * 4 + 16;
}

bool matrix_config_consistent(const AttendConfig& config, const AttendShape& shape) {
  const std::uint32_t chunk = config.tune[kTuneChunk];
  if (!matrices_take(shape) || !is_kernel_shape(matrix_shape_of(config))) return false;
  if (!std::has_single_bit(config.subgroup_size) || config.subgroup_size > 128) return false;
  if (config.local_size % config.subgroup_size != 0) return false;
  if (config.heads_per_tile * config.queries_per_item > kMostRows * 2) return false;
  // A row's lanes are neighbours in a subgroup.
  const std::uint32_t rows = subgroup_rows(config);
  if (!std::has_single_bit(rows) || rows > config.subgroup_size) return false;
  if (chunk == 0 || chunk % 32 != 0 || chunk % shape.page_tokens != 0) return false;
  return config.kv_per_item == 0 && config.kv_split != 0 && config.kv_split % shape.page_tokens == 0;
}

std::optional<AttendConfig> choose_matrix_config(const AttendShape& shape, const DevicePlan& plan) {
  // Steps of up to eight queries are drafts beside plain decoding: most rows of a tile would be empty.
  if (shape.max_queries <= 8 || plan.snapshot.type == DeviceType::cpu || !matrices_take(shape) ||
      !kernel_available(KernelId::attend_prefill_cm1, plan))
    return std::nullopt;
  std::optional<AttendConfig> best;
  std::uint32_t most = 0;
  for (const Known& known : kKnown) {
    const std::uint32_t size = known.product.m * known.product.n * known.product.k;
    if (!known.chosen || size <= most || known.subgroup_size != plan.subgroup_size) continue;
    const auto config = make_matrix_config(shape, known, std::min(plan.snapshot.max_shared_bytes, kLarge), plan.parallel_workgroups);
    if (!config || !attend_config_valid(*config, shape, plan)) continue;
    best = config;
    most = size;
  }
  return best;
}

std::vector<AttendConfig> all_matrix_configs(const AttendShape& shape) {
  std::vector<AttendConfig> configs;
  if (!matrices_take(shape)) return configs;
  for (const Known& known : kKnown) {
    for (const auto& [bytes, workgroups] : {std::pair{kLarge, 1U}, std::pair{kSmall, 512U}}) {
      const auto config = make_matrix_config(shape, known, known.product.k == 8 ? kSmall : bytes, workgroups);  // lavapipe's
      if (config && std::find(configs.begin(), configs.end(), *config) == configs.end()) configs.push_back(*config);
    }
  }
  return configs;
}

}  // namespace kvant
