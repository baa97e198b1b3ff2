// Geometry: groups, page bytes, slabs under limits, and the arithmetic beyond 4 GiB.
#include "geometry.hpp"

#include <doctest/doctest.h>

#include <string>

namespace kvant {
namespace {

ExecutorLimits wide_limits() {
  ExecutorLimits limits;
  limits.max_slab_bytes = 64ull << 30;
  limits.max_binding_bytes = 32ull << 30;
  limits.binding_alignment = 64;
  return limits;
}

CacheSpec one_layer(LayerSpec layer, std::uint64_t tokens) {
  CacheSpec spec;
  spec.layers = {layer};
  spec.capacity_tokens = tokens;
  return spec;
}

TEST_CASE("host geometry: layers of equal shape form a group, whatever their formats") {
  LayerSpec full{8, 128, 128, FormatId::q8_0, FormatId::nf4, 0, 0};
  LayerSpec other = full;
  other.format_k = FormatId::f32;
  LayerSpec window = full;
  window.window = 512;
  LayerSpec narrow = full;
  narrow.head_dim_v = 64;
  CacheSpec spec;
  spec.layers = {full, window, other, narrow, window};
  spec.capacity_tokens = 1000;
  const auto geometry = make_geometry(spec, wide_limits());
  REQUIRE(geometry.ok());
  REQUIRE(geometry->groups.size() == 3);
  CHECK(geometry->groups[0].layers == std::vector<std::uint32_t>{0, 2});
  CHECK(geometry->groups[1].layers == std::vector<std::uint32_t>{1, 4});
  CHECK(geometry->groups[2].layers == std::vector<std::uint32_t>{3});
  CHECK(geometry->groups[0].total_pages == 63);  // 1000 / 16, rounded up
  CHECK(geometry->layers[4].group == 1);
}

TEST_CASE("host geometry: page bytes are those of the layout, and regions do not overlap") {
  const auto geometry =
      make_geometry(one_layer({3, 80, 96, FormatId::q5_1, FormatId::nf4_dq, 0, 0}, 16 * 7), wide_limits());
  REQUIRE(geometry.ok());
  const LayerGeometry& layer = geometry->layers[0];
  for (std::size_t s = 0; s < 2; ++s) {
    const PageLayout layout = page_layout(format_info(layer.sides[s].format), layer.sides[s].head_dim, 16);
    CHECK(layer.sides[s].page_bytes == 3ull * layout.head_bytes);
    CHECK(layer.sides[s].page_bytes % 16 == 0);
  }
  const SlabLayout slab = slab_layout(layer, 7, 64);
  CHECK(slab.offset[0] == 0);
  CHECK(slab.bytes[0] == 7 * layer.sides[0].page_bytes);
  CHECK(slab.offset[1] >= slab.bytes[0]);
  CHECK(slab.offset[1] % 64 == 0);
  CHECK(slab.total_bytes == slab.offset[1] + slab.bytes[1]);
}

TEST_CASE("host geometry: every slab obeys the limits in every format") {
  for (std::uint64_t binding : {1ull << 20, 128ull << 20, (1ull << 32) - 4}) {
    for (std::uint64_t slab_limit : {binding, binding + 4096, 2 * binding}) {
      for (std::uint32_t alignment : {16u, 48u, 256u}) {
        ExecutorLimits limits;
        limits.max_slab_bytes = slab_limit;
        limits.max_binding_bytes = binding;
        limits.binding_alignment = alignment;
        GeometryOptions options;
        options.target_slab_bytes = ~0ull;
        const auto geometry =
            make_geometry(one_layer({8, 128, 72, FormatId::q4_0, FormatId::q8_0, 0, 0}, 50'000'000), limits, options);
        REQUIRE(geometry.ok());
        const GroupGeometry& group = geometry->groups[0];
        CHECK(std::uint64_t{group.slab_count} * group.pages_per_slab >= group.total_pages);
        CHECK(std::uint64_t{group.slab_count - 1} * group.pages_per_slab < group.total_pages);
        std::uint64_t pages = 0;
        for (std::uint32_t s = 0; s < group.slab_count; ++s) pages += group.pages_in(s);
        CHECK(pages == group.total_pages);
        for (const FormatInfo& format : formats()) {
          LayerGeometry layer = geometry->layers[0];
          layer.sides[0] = make_side(format.id, 128, 8, 16);
          layer.sides[1] = make_side(format.id, 72, 8, 16);
          const SlabLayout slab = slab_layout(layer, group.pages_per_slab, alignment);
          CHECK(slab.bytes[0] <= binding);
          CHECK(slab.bytes[1] <= binding);
          CHECK(slab.total_bytes <= slab_limit);
          CHECK(slab.offset[1] % alignment == 0);
        }
      }
    }
  }
}

TEST_CASE("host geometry: slabs, regions and pages beyond 2 and 4 GiB") {
  GeometryOptions options;
  options.target_slab_bytes = ~0ull;
  // 8 heads of 128 f32: 64 KiB a page and side. 262,140 pages a side are 16 GiB: regions end below 4 GiB, slabs below 8.
  const auto geometry =
      make_geometry(one_layer({8, 128, 128, FormatId::f32, FormatId::f32, 0, 0}, 16 * 262'140), wide_limits(), options);
  REQUIRE(geometry.ok());
  const GroupGeometry& group = geometry->groups[0];
  CHECK(group.pages_per_slab == 65'535);
  CHECK(group.slab_count == 4);
  const SlabLayout slab = slab_layout(geometry->layers[0], group.pages_per_slab, 64);
  CHECK(slab.bytes[0] == 65'535ull * 65'536);
  CHECK(slab.offset[1] > (2ull << 30));
  CHECK(slab.total_bytes > (4ull << 30));
  CHECK(slab.total_bytes == 2 * slab.bytes[0]);
  CHECK(std::uint64_t{group.first_page(3)} * 65'536 > (8ull << 30));

  // The same pool on the portability floor: 128 MiB bindings.
  ExecutorLimits floor;
  floor.max_slab_bytes = 256ull << 20;
  floor.max_binding_bytes = 128ull << 20;
  const auto cut =
      make_geometry(one_layer({8, 128, 128, FormatId::f32, FormatId::f32, 0, 0}, 16 * 200'000), floor, options);
  REQUIRE(cut.ok());
  CHECK(cut->groups[0].pages_per_slab <= 2048);
  CHECK(cut->groups[0].slab_of(199'999) == cut->groups[0].slab_count - 1);
  CHECK(std::uint64_t{cut->groups[0].first_page(cut->groups[0].slab_count - 1)} * 65'536 > (4ull << 30));
}

TEST_CASE("host geometry: a slab aims at its target size and the caller's bound") {
  GeometryOptions options;
  options.target_slab_bytes = 1 << 20;
  const LayerSpec layer{2, 64, 64, FormatId::f16, FormatId::f16, 0, 0};  // 4096 bytes a page and side
  CHECK(make_geometry(one_layer(layer, 100'000), wide_limits(), options)->groups[0].pages_per_slab == 128);
  options.max_pages_per_slab = 5;
  CHECK(make_geometry(one_layer(layer, 100'000), wide_limits(), options)->groups[0].pages_per_slab == 5);
  CHECK(make_geometry(one_layer(layer, 33), wide_limits(), options)->groups[0].pages_per_slab == 3);
}

TEST_CASE("host geometry: a pool that the device could never hold is refused, with both figures") {
  const LayerSpec layer{1, 32, 32, FormatId::f32, FormatId::f32, 0, 0};  // 256 bytes a token
  ExecutorLimits limits = wide_limits();
  limits.max_device_bytes = 256 * 1600;
  CHECK(make_geometry(one_layer(layer, 1600), limits).ok());
  const Status refused = make_geometry(one_layer(layer, 1601), limits).status();
  CHECK(refused.code() == StatusCode::resource_exhausted);
  CHECK_MESSAGE(refused.message().find("capacity_tokens (1601) makes a pool of 413696 bytes") != std::string::npos,
                refused.message());
  CHECK_MESSAGE(refused.message().find("at most 409600") != std::string::npos, refused.message());
  limits.max_device_bytes = 0;  // unknown
  CHECK(make_geometry(one_layer(layer, 1601), limits).ok());
}

TEST_CASE("host geometry: impossible specs name their values") {
  const LayerSpec layer{8, 576, 576, FormatId::f32, FormatId::f32, 0, 0};
  auto code = [](const Result<Geometry>& g) { return g.status().code(); };
  CHECK(code(make_geometry(CacheSpec{}, wide_limits())) == StatusCode::invalid_argument);
  CHECK(code(make_geometry(one_layer(layer, 0), wide_limits())) == StatusCode::invalid_argument);
  const auto long_pool = make_geometry(one_layer(layer, 3'000'000'000), wide_limits());
  CHECK(code(long_pool) == StatusCode::invalid_argument);
  CHECK(long_pool.status().message().find("3000000000") != std::string::npos);
  CHECK(code(make_geometry(one_layer(layer, ~0ull), wide_limits())) == StatusCode::invalid_argument);
  ExecutorLimits tiny;
  tiny.max_slab_bytes = tiny.max_binding_bytes = 64 << 10;
  CHECK(code(make_geometry(one_layer(layer, 100), tiny)) == StatusCode::resource_exhausted);
}

}  // namespace
}  // namespace kvant
