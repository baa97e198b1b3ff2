#include "wide_pages.hpp"

#include <algorithm>

#include "checked.hpp"

namespace kvant {
namespace {

// The wider of a side's own format and f16.
FormatId wide_format(FormatId format, bool chosen, std::uint32_t head_dim) {
  if (!chosen) return format;
  const std::uint64_t own = make_side(format, head_dim, 1, 16).page_bytes, f16 = make_side(FormatId::f16, head_dim, 1, 16).page_bytes;
  return own < f16 ? FormatId::f16 : format;
}

LayerSpec wide_layer(const LayerSpec& layer, const ProtectionSpec& protection) {
  LayerSpec wide = layer;
  wide.format_k = wide_format(layer.format_k, protection.k, layer.head_dim_k);
  wide.format_v = wide_format(layer.format_v, protection.v, layer.head_dim_v);
  return wide;
}

// One sequence's copies between two steps, and those of a step's fresh tokens.
std::uint64_t sequence_pages(const ProtectionSpec& protection, std::uint32_t page_tokens) {
  return divide_up(protection.first_tokens, page_tokens) + divide_up(protection.newest_tokens + WidePages::kMostFresh, page_tokens) + 2;
}

}  // namespace

WidePages::WidePages(Executor& executor, const CacheSpec& spec, Geometry geometry)
    : protection_(spec.protection), geometry_(std::move(geometry)), slabs_(executor, geometry_) {
  for (const GroupGeometry& group : geometry_.groups) pools_.emplace_back(group.total_pages, group.pages_per_slab);
  for (const LayerSpec& layer : spec.layers) narrow_.push_back(!(wide_layer(layer, protection_) == layer));
}

Result<std::unique_ptr<WidePages>> WidePages::create(Executor& executor, const CacheSpec& spec, Geometry& geometry) {
  const ProtectionSpec& protection = spec.protection;
  if (!protection.any()) return std::unique_ptr<WidePages>();
  if (spec.external_pages)
    return Status(StatusCode::invalid_argument, "the engine keeps the pages of this cache: which tokens are the newest is not known, and none are protected");
  CacheSpec wide = spec;
  wide.attention_mass = false;
  for (LayerSpec& layer : wide.layers) layer = wide_layer(layer, protection);
  const std::uint64_t one = sequence_pages(protection, spec.page_tokens);
  const std::uint64_t all = divide_up(spec.capacity_tokens, spec.page_tokens);
  const std::uint64_t pages = protection.capacity_tokens != 0 ? divide_up(protection.capacity_tokens, spec.page_tokens) : std::max(one, all / 8);
  wide.capacity_tokens = std::min(pages, all) * spec.page_tokens;
  // A slab as small as one sequence needs, but few slabs: each is a dispatch of its own.
  constexpr std::uint64_t kMostSlabs = 16;
  GeometryOptions slabs;
  slabs.max_pages_per_slab = static_cast<std::uint32_t>(std::max(one, divide_up(pages, kMostSlabs)));
  ExecutorLimits limits = executor.limits();
  limits.max_device_bytes = 0;  // what does not fit is not copied
  KVANT_ASSIGN(Geometry wide_geometry, make_geometry(wide, limits, slabs));
  for (std::size_t g = 0; g < geometry.groups.size(); ++g) geometry.groups[g].wide_pages_per_slab = wide_geometry.groups[g].pages_per_slab;
  return std::unique_ptr<WidePages>(new WidePages(executor, spec, std::move(wide_geometry)));
}

bool WidePages::protects(std::uint32_t group) const {
  const std::vector<std::uint32_t>& layers = geometry_.groups[group].layers;
  return std::any_of(layers.begin(), layers.end(), [this](std::uint32_t layer) { return narrow_[layer]; });
}

std::uint64_t WidePages::used_bytes() const {
  std::uint64_t bytes = 0;
  for (std::size_t g = 0; g < pools_.size(); ++g)
    for (const std::uint32_t layer : geometry_.groups[g].layers) bytes += geometry_.layers[layer].page_bytes() * pools_[g].used_pages();
  return bytes;
}

std::uint64_t WidePages::slabs_bytes(std::uint32_t group, std::uint32_t slabs) const {
  std::uint64_t bytes = 0;
  for (const std::uint32_t layer : geometry_.groups[group].layers)
    for (std::uint32_t slab = 0; slab < slabs; ++slab) bytes += slabs_.layout(layer, slab).total_bytes;
  return bytes;
}

// The same part of every group's slabs.
std::uint32_t WidePages::allowed_slabs(std::uint32_t group, std::uint64_t budget) const {
  std::uint64_t most = 0;
  for (std::uint32_t g = 0; g < pools_.size(); ++g)
    if (protects(g)) most += slabs_bytes(g, geometry_.groups[g].slab_count);
  const std::uint32_t slabs = geometry_.groups[group].slab_count;
  return budget >= most ? slabs : static_cast<std::uint32_t>(static_cast<long double>(slabs) * static_cast<long double>(budget) / static_cast<long double>(most));
}

std::uint64_t WidePages::bytes_under(std::uint64_t budget) const {
  std::uint64_t bytes = 0;
  for (std::uint32_t g = 0; g < pools_.size(); ++g)
    if (protects(g)) bytes += slabs_bytes(g, allowed_slabs(g, budget));
  return bytes;
}

bool WidePages::wants(std::uint32_t index, std::uint64_t before, std::uint64_t length) const {
  const std::uint64_t begin = std::uint64_t{index} * geometry_.page_tokens, end = begin + geometry_.page_tokens;
  if (begin < protection_.first_tokens) return true;
  return protection_.newest_tokens != 0 && end + protection_.newest_tokens + std::min(length - before, kMostFresh) > length;
}

void WidePages::age(Sequence& sequence, std::uint64_t length) {
  const std::uint64_t page_tokens = geometry_.page_tokens, newest = protection_.newest_tokens;
  const auto first = static_cast<std::uint32_t>(divide_up(protection_.first_tokens, page_tokens));
  const auto passed = static_cast<std::uint32_t>(length > newest ? (length - newest) / page_tokens : 0);
  for (std::uint32_t g = 0; g < sequence.wide.size(); ++g) {
    PageTable& table = sequence.wide[g];
    const std::uint32_t begin = std::max(first, sequence.aged_pages), end = std::min(table.size(), passed);
    if (begin < end) table.punch(begin, end, pools_[g]);
    const PageSpan gone = pages_past_window(geometry_.groups[g], length, static_cast<std::uint32_t>(page_tokens));
    if (gone.begin < std::min(gone.end, table.size())) table.punch(gone.begin, std::min(gone.end, table.size()), pools_[g]);
  }
  sequence.aged_pages = std::max(sequence.aged_pages, passed);
}

void WidePages::drop(Sequence& sequence, std::uint32_t first) {
  for (std::size_t g = 0; g < sequence.wide.size(); ++g)
    if (first < sequence.wide[g].size()) sequence.wide[g].shrink(first, pools_[g]);
  sequence.aged_pages = std::min(sequence.aged_pages, first);
}

void WidePages::drop_group(Sequence& sequence, std::uint32_t group) {
  if (group < sequence.wide.size()) sequence.wide[group].shrink(0, pools_[group]);
}

void WidePages::share(const Sequence& parent, Sequence& child, std::uint32_t pages) {
  child.wide.resize(parent.wide.size());
  for (std::size_t g = 0; g < parent.wide.size(); ++g) child.wide[g].share(parent.wide[g], std::min(pages, parent.wide[g].size()), pools_[g]);
}

HeldCopies::~HeldCopies() {
  for (std::size_t g = 0; g < pages.size(); ++g)
    if (pages[g] != kNoPage) owner.pool(static_cast<std::uint32_t>(g)).release(static_cast<std::uint32_t>(pages[g]));
}

bool HeldCopies::shared() const {
  for (std::size_t g = 0; g < pages.size(); ++g)
    if (pages[g] != kNoPage && owner.pool(static_cast<std::uint32_t>(g)).references(static_cast<std::uint32_t>(pages[g])) > 1) return true;
  return false;
}

std::shared_ptr<const HeldCopies> WidePages::hold(const Sequence& sequence, std::uint32_t index) {
  if (std::uint64_t{index} * geometry_.page_tokens >= protection_.first_tokens) return nullptr;
  std::vector<std::int32_t> pages(sequence.wide.size(), kNoPage);
  for (std::size_t g = 0; g < pages.size(); ++g)
    if (index < sequence.wide[g].size()) pages[g] = sequence.wide[g].at(index);
  if (std::all_of(pages.begin(), pages.end(), [](std::int32_t page) { return page == kNoPage; })) return nullptr;
  const std::vector<std::int32_t> referenced = pages;
  auto held = std::make_shared<const HeldCopies>(*this, std::move(pages));
  for (std::size_t g = 0; g < referenced.size(); ++g)
    if (referenced[g] != kNoPage) pools_[g].add_reference(static_cast<std::uint32_t>(referenced[g]));
  return held;
}

void WidePages::adopt(Sequence& sequence, std::uint32_t index, const HeldCopies& copies) {
  sequence.wide.resize(pools_.size());
  for (std::size_t g = 0; g < copies.pages.size(); ++g) {
    if (copies.pages[g] == kNoPage || sequence.tables[g].at(index) == kNoPage) continue;  // what a window has passed stays gone
    sequence.wide[g].reserve(index + 1);
    while (sequence.wide[g].size() <= index) sequence.wide[g].push(kNoPage);
    sequence.wide[g].set(index, copies.pages[g]);
    pools_[g].add_reference(static_cast<std::uint32_t>(copies.pages[g]));
  }
}

bool WidePages::fits(std::uint64_t budget) const {
  for (std::uint32_t g = 0; g < pools_.size(); ++g)
    for (std::uint32_t page = allowed_slabs(g, budget) * geometry_.groups[g].pages_per_slab; page < pools_[g].total_pages(); ++page)
      if (pools_[g].references(page) != 0) return false;
  return true;
}

void WidePages::set_limit(std::uint64_t budget) {
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const std::uint32_t allowed = allowed_slabs(g, budget);
    slabs_.release(g, allowed);
    pools_[g].set_slab_limit(allowed);
  }
}

void WidePages::give_back() {
  for (std::uint32_t g = 0; g < pools_.size(); ++g) slabs_.release(g, 0);
}

bool WidePages::changes(std::uint32_t layer, const LayerSpec& spec) const {
  const LayerSpec wide = wide_layer(spec, protection_);
  const LayerGeometry& now = geometry_.layers[layer];
  return wide.format_k != now.sides[0].format || wide.format_v != now.sides[1].format;
}

void WidePages::set_layer(std::uint32_t layer, const LayerSpec& spec) {
  const LayerSpec wide = wide_layer(spec, protection_);
  narrow_[layer] = !(wide == spec);
  if (!changes(layer, spec)) return;
  slabs_.release(geometry_.layers[layer].group, 0);
  geometry_.layers[layer].sides = {make_side(wide.format_k, spec.head_dim_k, spec.kv_heads, geometry_.page_tokens),
                                   make_side(wide.format_v, spec.head_dim_v, spec.kv_heads, geometry_.page_tokens)};
}

}  // namespace kvant
