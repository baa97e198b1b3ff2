// Geometry: what the layers of a cache look like in memory. Layers with equal heads, head sizes and window form a layer
// group and share page ids; every layer has its own slabs, and a page id lies in the same slab index in all layers of
// its group.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "cache_spec.hpp"
#include "params/types.h"

namespace kvant {

// Bytes that a slab aims at when the limits would allow more: slabs are allocated as pages are first used, so a smaller
// slab wastes less; a larger one means fewer dispatches.
inline constexpr std::uint64_t kTargetSlabBytes = 256ull << 20;

// Kernels count the bytes and words of what is bound in 32 bits: a slab may be larger, each of its regions may not.
inline constexpr std::uint64_t kMaxRegionBytes = (1ull << 32) - 256;

struct GeometryOptions {
  std::uint64_t target_slab_bytes = kTargetSlabBytes;
  std::uint32_t max_pages_per_slab = 0;  // 0 = no further bound
};

struct SideGeometry {
  FormatId format{};
  std::uint32_t head_dim = 0;
  PageLayout layout{};
  std::uint64_t page_bytes = 0;  // all KV heads of one page
};

// Pages are of a grade: 0, as append writes them, or cooled, with V in a narrower format (docs/cooling.md). K is the same in all.
inline constexpr std::uint32_t kMostGrades = 3;

struct LayerGeometry {
  std::uint32_t group = 0;
  std::array<SideGeometry, 2> sides;           // by Side, of grade 0
  std::vector<SideGeometry> cold_v = {};       // V of grade 1 on
  std::uint32_t transforms = 0;                // KVANT_ROTATE_*, KVANT_CENTRE_*

  const SideGeometry& side(Side s, std::uint32_t grade = 0) const {
    return s == Side::k || grade == 0 ? sides[static_cast<std::size_t>(s)] : cold_v[grade - 1];
  }
  std::uint64_t page_bytes(std::uint32_t grade = 0) const { return sides[0].page_bytes + side(Side::v, grade).page_bytes; }
  // Flags of a kernel that works on one side.
  std::uint32_t side_transforms(Side s) const {
    const bool rotated = (transforms & (s == Side::k ? KVANT_ROTATE_K : KVANT_ROTATE_V)) != 0;
    const bool centred = (transforms & (s == Side::k ? KVANT_CENTRE_K : KVANT_CENTRE_V)) != 0;
    return (rotated ? KVANT_ROTATE_K : 0) | (centred ? KVANT_CENTRE_K : 0);
  }
};

struct GroupGeometry {
  std::vector<std::uint32_t> layers;
  std::uint32_t kv_heads = 0, head_dim_k = 0, head_dim_v = 0;
  std::uint32_t window = 0, window_sinks = 0;
  std::uint32_t total_pages = 0, pages_per_slab = 0, slab_count = 0;
  // Attention mass, if the cache counts it: of a page, all layers of the group one after the other (params/attend.h, MASS).
  std::uint64_t mass_page_bytes = 0, mass_layer_bytes = 0;

  // Every grade has ids for as many pages and slabs; those of a grade follow those of the one before.
  std::uint32_t grades = 1;
  // Of wide copies (wide_pages.hpp), whose ids and slabs the planner sees behind these: page page_ids() is the first of slab slab_ids().
  std::uint32_t wide_pages_per_slab = 0;

  std::uint32_t slab_ids() const { return grades * slab_count; }
  std::uint32_t page_ids() const { return grades == 1 ? total_pages : slab_ids() * pages_per_slab; }
  std::uint32_t grade_of(std::uint32_t slab) const { return slab / slab_count; }
  std::uint32_t slab_of(std::uint32_t page) const {
    return page < page_ids() ? page / pages_per_slab : slab_ids() + (page - page_ids()) / wide_pages_per_slab;
  }
  std::uint32_t first_page(std::uint32_t slab) const {
    return slab < slab_ids() ? slab * pages_per_slab : page_ids() + (slab - slab_ids()) * wide_pages_per_slab;
  }
  std::uint32_t pages_in(std::uint32_t slab) const;  // the last slab of a grade may hold fewer
};

struct Geometry {
  std::uint32_t page_tokens = 16;
  std::uint32_t region_alignment = 16;
  std::vector<GroupGeometry> groups;
  std::vector<LayerGeometry> layers;

  const GroupGeometry& group_of(std::uint32_t layer) const { return groups[layers[layer].group]; }
};

// One slab of a layer: a K region, then a V region.
struct SlabLayout {
  std::array<std::uint64_t, 2> offset{}, bytes{};  // by Side
  std::uint64_t total_bytes = 0;
};

// Errors: invalid_argument for a spec that no device could hold, resource_exhausted when one page exceeds the limits.
Result<Geometry> make_geometry(const CacheSpec& spec, const ExecutorLimits& limits,
                               const GeometryOptions& options = {});

SideGeometry make_side(FormatId format, std::uint32_t head_dim, std::uint32_t kv_heads, std::uint32_t page_tokens);
// V of a layer's cooled pages, grade by grade: `cold` where it is narrower than the grade before, else as that.
std::vector<SideGeometry> make_cold_sides(const SideGeometry& v, std::span<const FormatId> cold, std::uint32_t kv_heads, std::uint32_t page_tokens);
SlabLayout slab_layout(const LayerGeometry& layer, std::uint64_t pages, std::uint32_t alignment, std::uint32_t grade = 0);

}  // namespace kvant
