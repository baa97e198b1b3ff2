#include "geometry.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include "checked.hpp"

namespace kvant {
namespace {

// Page bytes of the widest format: slabs are cut so that any format fits, hence convert never fails for a slab's size.
std::uint64_t widest_page_bytes(std::uint32_t head_dim, std::uint32_t kv_heads, std::uint32_t page_tokens) {
  std::uint64_t widest = 0;
  for (const FormatInfo& format : formats())
    widest = std::max(widest, make_side(format.id, head_dim, kv_heads, page_tokens).page_bytes);
  return widest;
}

bool same_group(const LayerSpec& layer, const GroupGeometry& group) {
  return layer.kv_heads == group.kv_heads && layer.head_dim_k == group.head_dim_k &&
         layer.head_dim_v == group.head_dim_v && layer.window == group.window &&
         layer.window_sinks == group.window_sinks;
}

std::string shape_text(const GroupGeometry& group) {
  return std::to_string(group.kv_heads) + " KV heads of " + std::to_string(group.head_dim_k) + " and " +
         std::to_string(group.head_dim_v) + " elements";
}

Status cut_slabs(Geometry& geometry, GroupGeometry& group, const ExecutorLimits& limits,
                 const GeometryOptions& options) {
  const std::uint64_t k_widest = widest_page_bytes(group.head_dim_k, group.kv_heads, geometry.page_tokens);
  const std::uint64_t v_widest = widest_page_bytes(group.head_dim_v, group.kv_heads, geometry.page_tokens);
  const std::uint64_t widest_side = std::max(k_widest, v_widest);
  const std::uint64_t most_bound = std::min(limits.max_binding_bytes, kMaxRegionBytes);
  std::uint64_t pages = most_bound / widest_side;
  // The V region may start up to one alignment later than K ends.
  const std::uint64_t slab_room =
      limits.max_slab_bytes - std::min<std::uint64_t>(limits.max_slab_bytes, geometry.region_alignment);
  pages = std::min(pages, slab_room / (k_widest + v_widest));
  if (pages == 0)
    return {StatusCode::resource_exhausted,
            "a page of " + shape_text(group) + " takes up to " + std::to_string(k_widest + v_widest) +
                " bytes, more than the device's buffers (" + std::to_string(limits.max_slab_bytes) +
                " bytes) or bindings (" + std::to_string(limits.max_binding_bytes) + " bytes) hold"};

  if (group.mass_page_bytes != 0) {
    pages = std::min(pages, std::min(most_bound, limits.max_slab_bytes) / group.mass_page_bytes);
    if (pages == 0)
      return {StatusCode::resource_exhausted,
              "the attention mass of a page in " + std::to_string(group.layers.size()) + " layers of " + shape_text(group) +
                  " takes " + std::to_string(group.mass_page_bytes) + " bytes, more than the device's buffers or bindings hold"};
  }

  std::uint64_t page_bytes = 1;  // of the group's largest layer in its present formats
  for (std::uint32_t layer : group.layers) page_bytes = std::max(page_bytes, geometry.layers[layer].page_bytes());
  pages = std::min(pages, std::max<std::uint64_t>(1, options.target_slab_bytes / page_bytes));
  if (options.max_pages_per_slab != 0) pages = std::min<std::uint64_t>(pages, options.max_pages_per_slab);
  // Cooling gives memory back by whole slabs, of which there should be some, if that does not make them tiny.
  constexpr std::uint64_t kSlabs = 8, kSmallSlabBytes = 1u << 20;
  if (group.grades > 1) pages = std::min(pages, std::max(divide_up(group.total_pages, kSlabs), kSmallSlabBytes / page_bytes + 1));
  // Slabs of nearly one size: a limit is for whole slabs.
  group.slab_count = static_cast<std::uint32_t>(divide_up(group.total_pages, std::min<std::uint64_t>(pages, group.total_pages)));
  group.pages_per_slab = static_cast<std::uint32_t>(divide_up(group.total_pages, group.slab_count));
  return {};
}

}  // namespace

std::uint32_t GroupGeometry::pages_in(std::uint32_t slab) const {
  return std::min(pages_per_slab, total_pages - slab % slab_count * pages_per_slab);
}

SideGeometry make_side(FormatId format, std::uint32_t head_dim, std::uint32_t kv_heads, std::uint32_t page_tokens) {
  SideGeometry side;
  side.format = format;
  side.head_dim = head_dim;
  side.layout = page_layout(format_info(format), head_dim, page_tokens);
  side.page_bytes = std::uint64_t{side.layout.head_bytes} * kv_heads;
  return side;
}

std::vector<SideGeometry> make_cold_sides(const SideGeometry& v, std::span<const FormatId> cold, std::uint32_t kv_heads, std::uint32_t page_tokens) {
  std::vector<SideGeometry> sides;
  SideGeometry side = v;
  for (std::uint32_t grade = 1; grade < kMostGrades; ++grade) {
    if (grade <= cold.size()) {
      const SideGeometry narrow = make_side(cold[grade - 1], v.head_dim, kv_heads, page_tokens);
      if (narrow.page_bytes < side.page_bytes) side = narrow;
    }
    sides.push_back(side);
  }
  return sides;
}

SlabLayout slab_layout(const LayerGeometry& layer, std::uint64_t pages, std::uint32_t alignment, std::uint32_t grade) {
  SlabLayout slab;
  slab.bytes = {pages * layer.sides[0].page_bytes, pages * layer.side(Side::v, grade).page_bytes};
  slab.offset = {0, align_up(slab.bytes[0], alignment)};
  slab.total_bytes = slab.offset[1] + slab.bytes[1];
  return slab;
}

Result<Geometry> make_geometry(const CacheSpec& spec, const ExecutorLimits& limits, const GeometryOptions& options) {
  if (spec.layers.empty()) return Status(StatusCode::invalid_argument, "layers (0) must be at least 1");
  Geometry geometry;
  geometry.page_tokens = spec.page_tokens;
  geometry.region_alignment = std::max(limits.binding_alignment, 16u);

  // Slots (page * page_tokens + offset) travel to the kernels as signed 32-bit integers.
  const std::uint64_t pages = divide_up(spec.capacity_tokens, spec.page_tokens);
  const std::uint64_t most_pages = std::numeric_limits<std::int32_t>::max() / spec.page_tokens;
  if (pages == 0 || pages > most_pages)
    return Status(StatusCode::invalid_argument, "capacity_tokens (" + std::to_string(spec.capacity_tokens) +
                                                    ") is not between 1 and " +
                                                    std::to_string(most_pages * spec.page_tokens));

  for (std::uint32_t i = 0; i < spec.layers.size(); ++i) {
    const LayerSpec& layer = spec.layers[i];
    auto group = std::find_if(geometry.groups.begin(), geometry.groups.end(),
                              [&](const GroupGeometry& g) { return same_group(layer, g); });
    if (group == geometry.groups.end()) {
      GroupGeometry fresh;
      fresh.kv_heads = layer.kv_heads;
      fresh.head_dim_k = layer.head_dim_k;
      fresh.head_dim_v = layer.head_dim_v;
      fresh.window = layer.window;
      fresh.window_sinks = layer.window_sinks;
      fresh.total_pages = static_cast<std::uint32_t>(pages);
      // Ids of cooled pages become slots as well: a pool that leaves no room for them cannot cool.
      const bool room = pages <= most_pages / kMostGrades / 2;
      fresh.grades = spec.attention_mass && !spec.external_pages && room ? kMostGrades : 1;
      group = geometry.groups.insert(geometry.groups.end(), std::move(fresh));
    }
    group->layers.push_back(i);
    LayerGeometry layer_geometry;
    layer_geometry.group = static_cast<std::uint32_t>(group - geometry.groups.begin());
    layer_geometry.sides = {make_side(layer.format_k, layer.head_dim_k, layer.kv_heads, spec.page_tokens),
                            make_side(layer.format_v, layer.head_dim_v, layer.kv_heads, spec.page_tokens)};
    layer_geometry.cold_v = make_cold_sides(layer_geometry.sides[1], {}, layer.kv_heads, spec.page_tokens);
    layer_geometry.transforms = (layer.rotate_k ? KVANT_ROTATE_K : 0) | (layer.rotate_v ? KVANT_ROTATE_V : 0) |
                                (layer.centre_k ? KVANT_CENTRE_K : 0) | (layer.centre_v ? KVANT_CENTRE_V : 0);
    geometry.layers.push_back(layer_geometry);
  }

  constexpr std::uint64_t kMassBytes = 8;  // of a token and KV head
  if (spec.attention_mass)
    for (GroupGeometry& group : geometry.groups) {
      group.mass_layer_bytes = kMassBytes * group.kv_heads * spec.page_tokens;
      group.mass_page_bytes = group.mass_layer_bytes * group.layers.size();
    }

  std::uint64_t pool_bytes = 0;
  for (const LayerGeometry& layer : geometry.layers) {
    const auto bytes = checked_multiply(layer.page_bytes() + geometry.groups[layer.group].mass_layer_bytes, pages);
    const auto sum = bytes ? checked_add(pool_bytes, *bytes) : std::nullopt;
    if (!sum)
      return Status(StatusCode::invalid_argument,
                    "capacity_tokens (" + std::to_string(spec.capacity_tokens) + ") needs more than 2^64 bytes");
    pool_bytes = *sum;
  }
  if (limits.max_device_bytes != 0 && pool_bytes > limits.max_device_bytes)
    return Status(StatusCode::resource_exhausted,
                  "capacity_tokens (" + std::to_string(spec.capacity_tokens) + ") makes a pool of " +
                      std::to_string(pool_bytes) + " bytes when it is full, the device may hold at most " +
                      std::to_string(limits.max_device_bytes));
  for (GroupGeometry& group : geometry.groups) KVANT_TRY(cut_slabs(geometry, group, limits, options));
  return geometry;
}

}  // namespace kvant
