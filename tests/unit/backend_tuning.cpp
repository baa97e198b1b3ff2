// Tuning: every config it chooses keeps the attention kernels' rules, on the floor device and on larger ones.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "backend_plans.hpp"
#include "tuning.hpp"
#include "tuning_matrix.hpp"

using namespace kvant;

namespace {

AttendShape shape_of(std::uint32_t dim_k, std::uint32_t dim_v, std::uint32_t group, std::uint32_t queries,
                     std::uint64_t kv) {
  AttendShape shape;
  shape.format_k = shape.format_v = 4;  // q4_0
  shape.head_dim_k = dim_k;
  shape.head_dim_v = dim_v;
  shape.group = group;
  shape.kv_heads = 8;
  shape.max_queries = shape.total_queries = queries;
  shape.max_kv_len = shape.total_kv_len = kv;
  return shape;
}

void check_all_shapes(const DevicePlan& plan) {
  for (const std::uint32_t page_tokens : {16U, 32U})
    for (std::uint32_t dim = 32; dim <= 576; dim += 8)
      for (const std::uint32_t group : {1U, 2U, 3U, 5U, 8U, 12U, 32U})
        for (const std::uint32_t queries : {1U, 2U, 7U, 8U, 300U}) {
          AttendShape shape = shape_of(dim, 608 - dim, group, queries, std::uint64_t{queries} * 37);
          shape.page_tokens = page_tokens;
          const AttendConfig config = choose_attend_config(shape, plan);
          INFO("head_dim_k ", dim, ", group ", group, ", queries ", queries, ", page_tokens ", page_tokens);
          REQUIRE(attend_config_valid(config, shape, plan));
        }
}

}  // namespace

TEST_CASE("tuning: llvmpipe since Mesa 26 decodes with shuffles, one vector of lanes a workgroup; older ones and other drivers without") {
  DevicePlan plan = cpu_device();
  const AttendShape decode = shape_of(128, 128, 4, 1, 4096), prefill = shape_of(128, 128, 4, 64, 4096);
  const auto version = [](std::uint32_t major) { return major << 22; };
  plan.snapshot.driver_id = 13;
  for (const std::uint32_t major : {22U, 25U}) {
    plan.snapshot.driver_version = version(major) + 3;
    CHECK(choose_attend_config(decode, plan).kernel == KernelId::attend_decode);
  }
  plan.snapshot.driver_version = version(26) + (1u << 12);
  const AttendConfig config = choose_attend_config(decode, plan);
  CHECK(config.kernel == KernelId::attend_decode_sg);
  CHECK(config.local_size == 8);
  CHECK(config.subgroup_size == 8);
  CHECK(config.tune[kTuneKLanes] == 4);
  CHECK(choose_attend_config(prefill, plan).kernel == KernelId::attend_prefill);
  check_all_shapes(plan);
  // Every shape's choice is among those that conformance runs.
  const auto all = all_attend_configs(decode);
  CHECK(std::any_of(all.begin(), all.end(), [&](const AttendConfig& one) {
    return one.kernel == config.kernel && one.local_size == config.local_size && one.tune == config.tune;
  }));
  plan.caps.subgroup = false;
  CHECK(choose_attend_config(decode, plan).kernel == KernelId::attend_decode);
  plan.caps.subgroup = true;
  plan.snapshot.driver_id = 9;
  CHECK(choose_attend_config(decode, plan).kernel == KernelId::attend_decode);
}

TEST_CASE("tuning: chosen configs are valid on the floor device, on a CPU device and on large ones") {
  check_all_shapes(floor_device());
  check_all_shapes(cpu_device());
  for (const std::uint32_t size : {4U, 8U, 16U, 32U, 64U, 128U}) {
    check_all_shapes(large_device(size, false));
    check_all_shapes(large_device(size, true));
  }
}

TEST_CASE("tuning: a growing sequence keeps its pipeline") {
  for (const DevicePlan& plan : {floor_device(), cpu_device(), large_device(32, true)}) {
    const AttendConfig first = choose_attend_config(shape_of(128, 128, 4, 1, 1), plan);
    for (std::uint64_t kv = 2; kv < 100000; kv = kv * 3 / 2 + 1) {
      const AttendConfig config = choose_attend_config(shape_of(128, 128, 4, 1, kv), plan);
      CHECK(config.kernel == first.kernel);
      CHECK(config.local_size == first.local_size);
      CHECK(config.heads_per_tile == first.heads_per_tile);
      CHECK(config.queries_per_item == first.queries_per_item);
      CHECK(config.kv_per_item == first.kv_per_item);
      CHECK(config.tune == first.tune);
    }
  }
}

TEST_CASE("tuning: long sequences are cut so that the device has work") {
  const DevicePlan plan = large_device(32, false);
  const AttendShape shape = shape_of(128, 128, 4, 1, 8192);
  const AttendConfig config = choose_attend_config(shape, plan);
  const std::uint64_t workgroups = (shape.max_kv_len + config.kv_split - 1) / config.kv_split * shape.kv_heads;
  CHECK(workgroups >= plan.parallel_workgroups / 2);
  CHECK(config.kv_split % shape.page_tokens == 0);
}

TEST_CASE("tuning: modules follow the device") {
  const AttendShape decode = shape_of(128, 128, 4, 1, 1000);
  CHECK(choose_attend_config(decode, floor_device()).kernel == KernelId::attend_decode);
  CHECK(choose_attend_config(decode, cpu_device()).kernel == KernelId::attend_decode);
  CHECK(choose_attend_config(shape_of(128, 128, 4, 64, 64), cpu_device()).kernel == KernelId::attend_prefill);
  CHECK(choose_attend_config(decode, large_device(32, false)).kernel == KernelId::attend_decode_sg);
  AttendShape codes_are_no_integers = decode;
  codes_are_no_integers.format_k = 8;  // nf4
  CHECK(choose_attend_config(codes_are_no_integers, large_device(32, true)).kernel == KernelId::attend_decode_sg);
  // An old shader compiler leaves the integer-dot module out of the build.
  const DevicePlan dots = large_device(32, true);
  const bool has_dots = kernel_available(KernelId::attend_decode_dot8, dots);
  CHECK(choose_attend_config(decode, dots).kernel ==
        (has_dots ? KernelId::attend_decode_dot8 : KernelId::attend_decode_sg));
  DevicePlan halves = large_device(32, true);
  halves.caps.subgroup = false;
  halves.snapshot.int_dot_accelerated = false;
  CHECK(choose_attend_config(decode, halves).kernel == KernelId::attend_decode_f16);
  CHECK(choose_attend_config(shape_of(128, 128, 4, 64, 64), halves).kernel == KernelId::attend_prefill);
}

TEST_CASE("tuning: the list of configs reaches every attention kernel and is consistent") {
  const AttendShape shape = shape_of(128, 96, 6, 9, 500);
  const std::vector<AttendConfig> configs = all_attend_configs(shape);
  std::set<KernelId> kernels;
  for (const AttendConfig& config : configs) {
    CHECK(attend_config_consistent(config, shape));
    kernels.insert(config.kernel);
  }
  CHECK(kernels.size() == 8);
  for (const AttendConfig& config : all_attend_configs(shape, floor_device())) {
    CHECK(attend_shared_bytes(config, shape) <= 16384);
    CHECK(kernel_info(config.kernel).needs == kernel_needs_none);
  }
}

TEST_CASE("tuning: lines are touched by workgroups of one vector of lanes alone") {
  const AttendShape shape = shape_of(128, 128, 4, 1, 1000);
  std::size_t touching = 0;
  for (AttendConfig config : all_attend_configs(shape)) {
    if (uses_matrices(config.kernel) || config.tune[kTuneTouch] == 0) continue;
    ++touching;
    CHECK(config.kernel == KernelId::attend_decode_sg);
    CHECK(config.local_size == std::max(8u, config.subgroup_size));
    config.tune[kTuneTouch] = 2;
    CHECK_FALSE(attend_config_consistent(config, shape));
  }
  CHECK(touching == 3);  // of 4, 8 and 16 lanes
}

TEST_CASE("tuning: shared memory is what attend_shared.glsl declares") {
  const AttendShape shape = shape_of(128, 96, 4, 2, 1000);
  AttendConfig config;
  config.kernel = KernelId::attend_decode;
  config.local_size = 16;
  config.heads_per_tile = config.queries_per_item = 2;
  config.tune[kTuneKLanes] = 1;
  config.tune[kTuneVLanes] = 3;
  config.tune[kTuneChunk] = 64;
  // Sums: 5 copies of 3 lanes' 8 quads; queries: 4 rows of 4 spans of 8 quads; 16 lane values and 4 floats a row.
  CHECK(attend_shared_bytes(config, shape) == (5 * 3 * 8 + 4 * 4 * 8) * 16 + (16 + 4 * 4) * 4);
  config.tune[kTuneKLanes] = 4;
  config.tune[kTuneChunk] = 256;  // now the scores are larger: 4 planes of 4 rows of 64 groups
  CHECK(attend_shared_bytes(config, shape) == (4 * 4 * 64 + 4 * 4 * 8) * 16 + (16 + 4 * 4) * 4);
}

TEST_CASE("tuning: broken configs are refused") {
  const AttendShape shape = shape_of(128, 128, 4, 1, 1000);
  const DevicePlan plan = floor_device();
  const AttendConfig good = choose_attend_config(shape, plan);
  const auto refused = [&](auto change) {
    AttendConfig config = good;
    change(config);
    return !attend_config_valid(config, shape, plan);
  };
  CHECK(refused([](AttendConfig& c) { c.heads_per_tile = 5; }));
  CHECK(refused([](AttendConfig& c) { c.queries_per_item = 9; }));
  CHECK(refused([](AttendConfig& c) { c.local_size = 512; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneKLanes] = 3; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneVLanes] = 3; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneChunk] += 8; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneChunk] = c.kv_per_item = 65536; }));
  CHECK(refused([](AttendConfig& c) { c.kv_split = c.kv_per_item + 16; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneTouch] = 1; }));  // a module without that constant
  CHECK(refused([](AttendConfig& c) { c.subgroup_size = 8; }));
  CHECK(refused([](AttendConfig& c) { c.kernel = KernelId::attend_decode_sg; }));
  CHECK(refused([](AttendConfig& c) { c.kernel = KernelId::append; }));
}
