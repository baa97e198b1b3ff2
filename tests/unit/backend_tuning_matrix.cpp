// Tuning of attention on cooperative matrices: which products are taken, when, and what a config must keep.
#include <doctest/doctest.h>

#include <array>
#include <utility>

#include "tuning.hpp"
#include "tuning_matrix.hpp"

using namespace kvant;

namespace {

CoopmatShape product(std::uint32_t m, std::uint32_t n, std::uint32_t k) { return {m, n, k, 0, 0, 1, 1, 3}; }

DevicePlan matrix_device(std::uint32_t subgroup_size, std::vector<CoopmatShape> shapes) {
  DevicePlan plan;
  plan.snapshot.type = DeviceType::discrete;
  plan.snapshot.max_shared_bytes = 49152;
  plan.snapshot.max_invocations = 1024;
  plan.snapshot.max_local_size = {1024, 1024, 64};
  plan.snapshot.max_workgroup_subgroups = 32;
  plan.snapshot.subgroup_min_size = plan.snapshot.subgroup_max_size = subgroup_size;
  plan.snapshot.coopmat_shapes = std::move(shapes);
  plan.caps.subgroup = plan.caps.fp16 = plan.caps.coopmat = true;
  plan.subgroup_size = subgroup_size;
  plan.parallel_workgroups = 512;
  return plan;
}

AttendShape prefill(std::uint32_t dim, std::uint32_t group, std::uint32_t queries) {
  AttendShape shape;
  shape.format_k = shape.format_v = 4;  // q4_0
  shape.head_dim_k = shape.head_dim_v = dim;
  shape.group = group;
  shape.kv_heads = 8;
  shape.max_queries = shape.total_queries = queries;
  shape.max_kv_len = shape.total_kv_len = 4096;
  return shape;
}

// An old shader compiler leaves the module out; the sysroot's makes it.
bool built() {
  const bool has_module = !kernel_info(KernelId::attend_prefill_cm1).spirv.empty();
  if (!has_module) MESSAGE("skipped: attend_prefill_cm1 is not in this build (tools/sysroot makes a newer shader compiler)");
  return has_module;
}

}  // namespace

TEST_CASE("matrix tuning: products are of f16 with sums of f32 in a subgroup") {
  DeviceSnapshot s;
  CHECK_FALSE(has_matrix_shapes(s));
  s.coopmat_shapes = {{16, 16, 16, 0, 0, 0, 0, 3}, {8, 8, 32, 3, 3, 5, 5, 3}, {16, 16, 16, 0, 0, 1, 1, 2}, {64, 16, 16, 0, 0, 1, 1, 3}};
  CHECK_FALSE(has_matrix_shapes(s));
  s.coopmat_shapes.push_back(product(16, 8, 8));
  CHECK(has_matrix_shapes(s));
  CHECK(has_matrix_shape(s, {16, 8, 8}));
  CHECK_FALSE(has_matrix_shape(s, {64, 8, 8}));
}

TEST_CASE("matrix tuning: the largest product that has cases and fits is taken") {
  const AttendShape shape = prefill(128, 4, 64);
  const auto chosen = [&](std::uint32_t size, std::vector<CoopmatShape> shapes) {
    const DevicePlan plan = matrix_device(size, std::move(shapes));
    const auto config = choose_matrix_config(shape, plan);
    return config ? std::array{config->tune[kTuneMatrixM], config->tune[kTuneMatrixN], config->tune[kTuneMatrixK]} : std::array{0u, 0u, 0u};
  };
  if (!built()) return;
  CHECK(chosen(32, {product(16, 8, 8), product(16, 8, 16)}) == std::array{16u, 8u, 16u});
  CHECK(chosen(32, {product(16, 8, 16), product(16, 16, 16), product(16, 8, 16)}) == std::array{16u, 16u, 16u});
  CHECK(chosen(32, {product(32, 32, 16), product(16, 16, 16)}) == std::array{16u, 16u, 16u});
  CHECK(chosen(32, {product(32, 32, 16)}) == std::array{0u, 0u, 0u});
  CHECK(chosen(16, {product(16, 16, 16)}) == std::array{0u, 0u, 0u});  // nobody has it with subgroups of 16
}

TEST_CASE("matrix tuning: on Intel a subgroup's sums take half of the registers") {
  if (!built()) return;
  for (const std::uint32_t size : {16u, 32u}) {
    const DevicePlan plan = matrix_device(size, {product(8, 16, 16)});
    for (const auto& [dim, rows] : {std::pair{64u, 16u}, std::pair{96u, 8u}, std::pair{128u, 8u}}) {
      const auto config = choose_matrix_config(prefill(dim, 4, 64), plan);
      REQUIRE(config);
      CHECK(config->heads_per_tile * config->queries_per_item <= rows * (config->local_size / size));
    }
    CHECK_FALSE(choose_matrix_config(prefill(192, 4, 64), plan));
  }
}

TEST_CASE("matrix tuning: prefill takes matrices where device, formats and head sizes allow, and only then") {
  const DevicePlan plan = matrix_device(32, {product(16, 16, 16)});
  if (!built()) return;
  const auto kernel = [](const AttendShape& shape, const DevicePlan& on) { return choose_attend_config(shape, on).kernel; };
  const AttendShape shape = prefill(128, 4, 64);
  CHECK(kernel(shape, plan) == KernelId::attend_prefill_cm1);
  CHECK(kernel(prefill(256, 8, 512), plan) == KernelId::attend_prefill_cm1);
  CHECK(kernel(prefill(264, 8, 512), plan) != KernelId::attend_prefill_cm1);
  CHECK(kernel(prefill(128, 4, 8), plan) != KernelId::attend_prefill_cm1);
  CHECK(kernel(prefill(128, 4, 9), plan) == KernelId::attend_prefill_cm1);
  const auto changed = [&](auto change) {
    AttendShape other = shape;
    change(other);
    return kernel(other, plan);
  };
  CHECK(changed([](AttendShape& s) { s.format_k = 1; }) == KernelId::attend_prefill_cm1);   // f16
  CHECK(changed([](AttendShape& s) { s.format_v = 10; }) == KernelId::attend_prefill_cm1);  // f8_e4m3
  CHECK(changed([](AttendShape& s) { s.format_k = 0; }) != KernelId::attend_prefill_cm1);   // f32
  CHECK(changed([](AttendShape& s) { s.format_v = 2; }) != KernelId::attend_prefill_cm1);   // bf16
  CHECK(changed([](AttendShape& s) { s.scored = true; }) != KernelId::attend_prefill_cm1);
  DevicePlan other = plan;
  other.caps.coopmat = false;
  CHECK(kernel(shape, other) != KernelId::attend_prefill_cm1);
  other = plan;
  other.snapshot.type = DeviceType::cpu;
  CHECK(kernel(shape, other) != KernelId::attend_prefill_cm1);
  CHECK(kernel(shape, matrix_device(16, {product(8, 8, 16)})) != KernelId::attend_prefill_cm1);
  CHECK(kernel(shape, matrix_device(16, {product(8, 16, 16)})) == KernelId::attend_prefill_cm1);
  other = plan;
  other.snapshot.max_shared_bytes = 16384;  // holds the tiles of 16 rows, but not of more
  CHECK(attend_config_valid(choose_attend_config(shape, other), shape, other));
}

TEST_CASE("matrix tuning: every chosen config is valid, its rows fill the subgroups, and its memory fits") {
  if (!built()) return;
  for (const auto& [size, shape] : {std::pair{32u, product(16, 16, 16)}, std::pair{64u, product(16, 16, 16)}, std::pair{32u, product(16, 8, 16)},
                                    std::pair{16u, product(8, 16, 16)}, std::pair{32u, product(8, 16, 16)}})
    for (const std::uint32_t dim : {32u, 40u, 64u, 80u, 96u, 128u, 192u, 256u})
      for (const std::uint32_t group : {1u, 2u, 3u, 7u, 8u, 32u})
        for (const std::uint32_t queries : {9u, 64u, 2048u}) {
          const DevicePlan plan = matrix_device(size, {shape});
          if (shape.m == 8 && dim > 128) continue;  // above
          const AttendShape call = prefill(dim, group, queries);
          const AttendConfig config = choose_attend_config(call, plan);
          INFO("subgroup ", size, ", dim ", dim, ", group ", group, ", queries ", queries);
          REQUIRE(attend_config_valid(config, call, plan));
          REQUIRE(config.kernel == KernelId::attend_prefill_cm1);
          CHECK(attend_shared_bytes(config, call) <= 49152);
          CHECK(config.local_size / size <= 4);
          CHECK(config.queries_per_item <= queries);
          CHECK(config.kv_per_item == 0);
        }
}

TEST_CASE("matrix tuning: shared memory is what matrix_shared.glsl declares") {
  const AttendShape shape = prefill(96, 4, 64);
  AttendConfig config;
  config.kernel = KernelId::attend_prefill_cm1;
  config.local_size = 64;
  config.subgroup_size = 32;
  config.heads_per_tile = 4;
  config.queries_per_item = 7;  // 28 rows: two subgroups have a tile of 16 each
  config.tune[kTuneMatrixM] = config.tune[kTuneMatrixN] = config.tune[kTuneMatrixK] = 16;
  config.tune[kTuneChunk] = 64;
  // Rows of 26 quads of Q, of 26 of K or V, of 18 of weights in fp16; of 17 of scores; 64 lane values, two floats a row, 4 pages, a flag.
  CHECK(attend_shared_bytes(config, shape) == (32 * 26 + 64 * 26 + 32 * 18) * 8 + 32 * 17 * 16 + (64 + 32 * 2) * 4 + 4 * 4 + 16);
}

TEST_CASE("matrix tuning: broken configs are refused") {
  const DevicePlan plan = matrix_device(32, {product(16, 16, 16)});
  if (!built()) return;
  const AttendShape shape = prefill(128, 4, 64);
  const AttendConfig good = choose_attend_config(shape, plan);
  REQUIRE(attend_config_valid(good, shape, plan));
  const auto refused = [&](auto change) {
    AttendConfig config = good;
    change(config);
    return !attend_config_valid(config, shape, plan);
  };
  CHECK(refused([](AttendConfig& c) { c.heads_per_tile = 5; }));
  CHECK(refused([](AttendConfig& c) { c.queries_per_item = 64; }));
  CHECK(refused([](AttendConfig& c) { c.queries_per_item = 0; }));
  CHECK(refused([](AttendConfig& c) { c.local_size += 16; }));
  CHECK(refused([](AttendConfig& c) { c.local_size = 0; }));
  CHECK(refused([](AttendConfig& c) { c.subgroup_size = 0; }));
  CHECK(refused([](AttendConfig& c) { c.subgroup_size = 16; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneMatrixM] = 8; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneMatrixN] = 12; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneMatrixK] = 0; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneChunk] = 16; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneChunk] = 0; }));
  CHECK(refused([](AttendConfig& c) { c.tune[kTuneChunk] = 1024; }));
  CHECK(refused([](AttendConfig& c) { c.kv_per_item = 64; }));
  CHECK(refused([](AttendConfig& c) { c.kv_split = 8; }));
  AttendShape wide = shape;
  wide.page_tokens = 128;
  CHECK_FALSE(attend_config_valid(good, wide, plan));
}

