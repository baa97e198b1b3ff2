// Arithmetic beyond 2^32: bytes of pools, slabs, regions, pages, masses, tensors, partial results and grids, against 128 bits.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "checked.hpp"
#include "geometry.hpp"
#include "params/attend.h"
#include "params/grids.h"
#include "planner.hpp"
#include "tensor_io.hpp"

namespace kvant {
namespace {

__extension__ using Wide = unsigned __int128;
constexpr std::uint64_t k4GiB = 1ull << 32;

ExecutorLimits limits_of(std::uint64_t slab, std::uint64_t binding) {
  ExecutorLimits limits;
  limits.max_slab_bytes = slab;
  limits.max_binding_bytes = binding;
  limits.binding_alignment = 256;
  return limits;
}

CacheSpec spec_of(std::uint32_t layers, LayerSpec layer, std::uint64_t tokens, std::uint32_t page_tokens, bool mass) {
  CacheSpec spec;
  spec.layers.assign(layers, layer);
  spec.capacity_tokens = tokens;
  spec.page_tokens = page_tokens;
  spec.attention_mass = mass;
  return spec;
}

// What a kernel computes in 32 bits of a region, at its largest: the last byte of the last page's scales (kv_region.glsl).
void check_offsets(const SideGeometry& side, std::uint32_t kv_heads, std::uint64_t pages) {
  const Wide region = Wide{pages} * side.page_bytes;
  CHECK(region == Wide{pages} * kv_heads * side.layout.head_bytes);
  CHECK(region < k4GiB);
  CHECK(side.layout.head_bytes % 16 == 0);  // offsets of heads are exact in 16-byte words
}

TEST_CASE("host sizes: regions stay within what kernels count in 32 bits, whatever a device binds") {
  GeometryOptions options;
  options.target_slab_bytes = ~0ull;
  std::size_t several_slabs = 0, wide_slabs = 0;
  for (const std::uint64_t binding : {128ull << 20, (4ull << 30) - 4, 5ull << 30, 64ull << 30})
    for (const std::uint32_t dim : {32u, 80u, 128u, 576u})
      for (const std::uint32_t heads : {1u, 8u, 1024u})
        for (const bool mass : {false, true}) {
          const LayerSpec layer{heads, dim, dim, FormatId::q4_0, FormatId::f32, 0, 0};
          const auto geometry = make_geometry(spec_of(2, layer, 0x7FFFFFFF - 31, 32, mass), limits_of(binding * 2 + 512, binding), options);
          if (!geometry.ok()) {
            CHECK(geometry.status().code() == StatusCode::resource_exhausted);
            continue;
          }
          const GroupGeometry& group = geometry->groups[0];
          CHECK(Wide{group.slab_count} * group.pages_per_slab >= group.total_pages);
          CHECK(Wide{group.slab_count - 1} * group.pages_per_slab < group.total_pages);
          for (std::uint32_t s = 0; s < group.slab_count; s += std::max(1u, group.slab_count / 7)) {
            CHECK(group.first_page(s) == Wide{s} * group.pages_per_slab);
            CHECK(group.slab_of(group.first_page(s)) == s);
          }
          for (const FormatInfo& format : formats()) {  // every format that convert may choose
            const SideGeometry side = make_side(format.id, dim, heads, 32);
            check_offsets(side, heads, group.pages_per_slab);
          }
          CHECK(Wide{group.pages_per_slab} * group.mass_page_bytes <= kMaxRegionBytes);
          CHECK(Wide{group.mass_page_bytes} == Wide{mass ? 8u : 0u} * heads * 32 * 2);
          const SlabLayout slab = slab_layout(geometry->layers[0], group.pages_per_slab, geometry->region_alignment);
          const std::uint64_t pages = group.pages_per_slab;
          CHECK(Wide{slab.bytes[0]} == Wide{pages} * geometry->layers[0].sides[0].page_bytes);
          CHECK(Wide{slab.total_bytes} == Wide{slab.offset[1]} + slab.bytes[1]);
          CHECK(slab.offset[1] >= slab.bytes[0]);
          several_slabs += group.slab_count > 1 ? 1 : 0;
          wide_slabs += slab.total_bytes > k4GiB ? 1 : 0;
        }
  CHECK(several_slabs > 10);
  CHECK(wide_slabs > 4);  // slabs themselves may be wider: offsets into them are 64 bits
}

TEST_CASE("host sizes: a pool is counted in 64 bits or refused") {
  // 1024 heads of 576 f32 elements, K and V, and 2^31 - 32 tokens: 1024 layers of that are counted, 4096 are more than 2^64 bytes.
  const LayerSpec layer{1024, 576, 576, FormatId::f32, FormatId::f32, 0, 0};
  const auto limits = limits_of(8ull << 30, 4ull << 30);
  const auto spec = [&](std::uint32_t layers) { return spec_of(layers, layer, 0x7FFFFFFF - 31, 32, true); };
  const auto pool = [](std::uint64_t layers) {
    return (Wide{1024} * 32 * 576 * 4 * 2 + Wide{8} * 1024 * 32) * layers * ((0x7FFFFFFFull - 31) / 32);
  };
  REQUIRE(pool(1024) <= ~0ull);
  REQUIRE(pool(4096) > ~0ull);
  CHECK(make_geometry(spec(1024), limits).ok());
  const Status wrapped = make_geometry(spec(4096), limits).status();
  CHECK(wrapped.code() == StatusCode::invalid_argument);
  CHECK_MESSAGE(wrapped.message().find("more than 2^64 bytes") != std::string::npos, wrapped.message());
  auto bounded = limits;
  const auto bytes = static_cast<std::uint64_t>(pool(1024));
  bounded.max_device_bytes = bytes - 1;
  const Status refused = make_geometry(spec(1024), bounded).status();
  CHECK(refused.code() == StatusCode::resource_exhausted);
  CHECK_MESSAGE(refused.message().find(std::to_string(bytes)) != std::string::npos, refused.message());
  bounded.max_device_bytes = bytes;
  CHECK(make_geometry(spec(1024), bounded).ok());
  // Slots are signed 32-bit numbers on the way to the kernels.
  CHECK_FALSE(make_geometry(spec_of(1, layer, 1ull << 31, 32, false), limits).ok());
  CHECK_FALSE(make_geometry(spec_of(1, layer, (1ull << 32) + 16, 16, false), limits).ok());
}

TEST_CASE("host sizes: sums and products that do not fit are seen") {
  const std::vector<std::uint64_t> values = {0, 1, 2, 3, 0xFFFF, 0xFFFFFFFF, k4GiB, k4GiB + 1, ~0ull / 3, ~0ull >> 1, ~0ull - 1, ~0ull};
  for (const std::uint64_t a : values)
    for (const std::uint64_t b : values) {
      const Wide sum = Wide{a} + b, product = Wide{a} * b;
      CHECK(checked_add(a, b).has_value() == (sum <= ~0ull));
      CHECK(checked_multiply(a, b).has_value() == (product <= ~0ull));
      if (product <= ~0ull) CHECK(Wide{*checked_multiply(a, b)} == product);
      if (b != 0) CHECK(Wide{divide_up(a, b)} == (Wide{a} + b - 1) / b);
      if (b != 0 && a < (1ull << 62) && b < (1ull << 62)) CHECK(Wide{align_up(a, b)} == (Wide{a} + b - 1) / b * b);
    }
}

TEST_CASE("host sizes: shapes and grids") {
  CHECK(TensorShape{0x7FFFFFFF, 16384, 576}.elements() == 0x7FFFFFFFull * 16384 * 576);
  TensorView host;
  std::byte byte{};
  host.host = &byte;
  host.type = IoType::f32;
  CHECK(Wide{TensorIo::bytes_of(host, {0x7FFFFFFF, 16384, 576})} == (Wide{0x7FFFFFFF} * 16384 * 576 * 4 + 255) / 256 * 256);
  // Units beyond 32 bits are counted, and the grid is cut at the device's limit.
  CHECK(params::append_units(0x7FFFFFFF, 1024, 576, 32, 576, 32) == 0x7FFFFFFFull * 1024 * 18);
  CHECK(params::read_units(0x7FFFFFFF, 1024, 576) == 0x7FFFFFFFull * 1024 * 18);
  CHECK(params::append_grid(0x7FFFFFFF, 1024, 576, 32, 576, 32, 64, 65535) == params::Grid{65535, 2, 1});
  CHECK(params::read_grid(0x7FFFFFFF, 1024, 576, 64, ~0u) == params::Grid{~0u, 1, 1});
  CHECK(params::gather_grid(5 * k4GiB, 3, 64, 65535, 65535) == params::Grid{65535, 3, 1});
  CHECK(params::rotate_grid(~0u, ~0u, 64, 65535) == params::Grid{65535, 1, 1});
  // The last stride of a kernel's loop does not wrap: units end at most one grid's width beyond kMaxUnits.
  CHECK(params::kMaxUnits + 65535ull * 1024 < k4GiB);
}

// One query with many heads over a long sequence of scattered pages: its partial rows pass 2^32, which the cache must see to refuse it.
TEST_CASE("host sizes: partial rows are counted in 64 bits") {
  constexpr std::uint32_t kPages = 1u << 18, kHeads = 16384;
  GroupGeometry group;
  group.kv_heads = 1;
  group.head_dim_k = group.head_dim_v = 64;
  group.total_pages = kPages;
  group.pages_per_slab = kPages;
  group.slab_count = 1;
  GroupBatch batch;
  params::AttendSeq seq{};
  seq.kv_len = kPages * 16;
  seq.q_len = 1;
  seq.q_pos_begin = static_cast<std::int32_t>(seq.kv_len) - 1;
  seq.mask_kv_begin = seq.kv_len;
  batch.seqs.push_back(seq);
  batch.page_counts.push_back(kPages);
  for (std::uint32_t page = 0; page < kPages; ++page) batch.pages.push_back(static_cast<std::int32_t>(page));
  AttendRequest request;
  request.q_heads = kHeads;
  request.own.kv_split = 16;
  AttendPlanner planner;
  AttendPlan plan;
  planner.plan(batch, group, 16, request, plan);
  CHECK(plan.items.size() == kPages);
  CHECK(plan.max_partial_rows == std::uint64_t{kPages} * kHeads);
  CHECK(plan.max_partial_rows == k4GiB);
  REQUIRE(plan.passes.size() == 1);
  CHECK(plan.passes[0].partial_rows == k4GiB);
  // What fits a device's binding leaves every row, times its words, within 32 bits.
  CHECK(Wide{kMaxRegionBytes} / ((576 + 1) * 4) * 576 < k4GiB);
}

}  // namespace
}  // namespace kvant
