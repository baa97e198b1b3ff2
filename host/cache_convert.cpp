// CacheImpl: changing the format of one side of a layer. New slabs are filled from the old ones, then take their place.
#include <algorithm>
#include <cstring>

#include "cache_impl.hpp"
#include "cache_key.hpp"
#include "params/pages.h"
#include "rollback.hpp"
#include "staging_room.hpp"

namespace kvant {

// Tokens written per page of a group. With external pages nobody here knows, so every token of an allocated slab
// counts.
std::vector<std::uint32_t> CacheImpl::page_fill(std::uint32_t group) const {
  const GroupGeometry& facts = geometry_.groups[group];
  const std::uint32_t page_tokens = geometry_.page_tokens;
  std::vector<std::uint32_t> fill(facts.page_ids(), 0);
  if (spec_.external_pages) {
    for (std::uint32_t page = 0; page < facts.total_pages; ++page)
      if (slabs_.allocated({group, facts.slab_of(page)})) fill[page] = page_tokens;
    return fill;
  }
  if (prefixes_ != nullptr)
    for (const PrefixNode* node : prefixes_->nodes())
      if (node->pages[group] != kNoPage) fill[static_cast<std::uint32_t>(node->pages[group])] = page_tokens;
  for (const auto& [id, sequence] : sequences_) {
    const PageTable& table = sequence.tables[group];
    for (std::uint32_t i = 0; i < table.size(); ++i) {
      if (table.at(i) == kNoPage) continue;
      const std::uint64_t left = sequence.length - std::uint64_t{i} * page_tokens;
      std::uint32_t& tokens = fill[static_cast<std::uint32_t>(table.at(i))];
      tokens = std::max(tokens, static_cast<std::uint32_t>(std::min<std::uint64_t>(left, page_tokens)));
    }
  }
  return fill;
}

LayerGeometry CacheImpl::converted_layer(std::uint32_t layer, Side side, FormatId format) const {
  LayerGeometry converted = geometry_.layers[layer];
  SideGeometry& changed = converted.sides[static_cast<std::size_t>(side)];
  changed = make_side(format, changed.head_dim, geometry_.group_of(layer).kv_heads, geometry_.page_tokens);
  // V's weight may have changed since pages cooled, and their codes stay as they are where K is converted.
  if (side == Side::v) converted.cold_v = cold_sides(layer, converted.sides[1], cold_formats_);
  return converted;
}

Status CacheImpl::convert(std::uint32_t layer, Side side, FormatId format) {
  KVANT_TRY(check_layer(layer));
  if (open_step_ != nullptr)
    return {StatusCode::failed_precondition,
            "a step is open; commit or abort it before layer " + std::to_string(layer) + " is converted"};
  const CacheJournal::Timer timer(journal_, Operation::convert);
  LayerGeometry& facts = geometry_.layers[layer];
  const auto s = static_cast<std::size_t>(side);
  if (facts.sides[s].format == format) return {};
  KVANT_TRY(check_limit(layer, side, format));
  const GroupGeometry& group = geometry_.groups[facts.group];

  LayerGeometry converted = converted_layer(layer, side, format);
  const std::vector<std::uint32_t> fill = page_fill(facts.group);
  std::vector<BufferId> fresh(group.slab_ids(), BufferId::none);
  Rollback undo([&] {
    for (BufferId buffer : fresh) executor_.destroy_buffer(buffer);
  });
  std::uint64_t old_bytes = 0, new_bytes = 0;
  const std::size_t most = static_cast<std::size_t>(most_staged(executor_.limits(), 12));  // triples of one staged table

  auto fill_slab = [&](std::uint32_t slab) -> Status {
    const std::uint32_t pages = group.pages_in(slab), first = group.first_page(slab), grade = group.grade_of(slab);
    const SlabLayout source = slabs_.layout(layer, slab),
                     target = slab_layout(converted, pages, geometry_.region_alignment, grade);
    const SideGeometry &from = facts.side(side, grade), &to = converted.side(side, grade);
    KVANT_ASSIGN(fresh[slab], executor_.create_buffer(target.total_bytes, BufferKind::device));
    old_bytes += source.total_bytes;
    new_bytes += target.total_bytes;
    list_.clear();
    if (poison_) {
      list_.add_fill({{fresh[slab], 0, target.total_bytes}, *poison_}, "poison", false);
    }
    // The other side's codes move as they are, and so do those of cooled pages whose format stays.
    bool barrier = true;
    for (std::size_t other = 0; other < 2; ++other) {
      if (other == s && from.format != to.format) continue;
      list_.add_copy({slabs_.buffer(layer, slab), source.offset[other], fresh[slab], target.offset[other], source.bytes[other]}, "convert", barrier);
      barrier = false;
    }
    std::vector<std::uint32_t> triples;
    for (std::uint32_t page = 0; page < pages && from.format != to.format; ++page)
      if (fill[first + page] != 0) triples.insert(triples.end(), {page, page, fill[first + page]});
    for (std::size_t done = 0; done < triples.size() / 3; done += most) {
      const std::size_t count = std::min(most, triples.size() / 3 - done);
      KVANT_ASSIGN(const Staging staging, executor_.stage(count * 12, BufferKind::upload));
      std::memcpy(staging.data, triples.data() + done * 3, count * 12);
      params::ConvertParams convert_params{};
      convert_params.triple_count = static_cast<std::uint32_t>(count);
      convert_params.kv_heads = group.kv_heads;
      record_convert(convert_params, from, to.format, slabs_.region(layer, side, slab), {fresh[slab], target.offset[s], target.bytes[s]},
                     staging.range, poison_.has_value());
      KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, executor_.submit(list_));
      list_.clear();
    }
    if (list_.commands.empty()) return {};
    return executor_.submit(list_).status();
  };
  for (std::uint32_t slab = 0; slab < group.slab_ids(); ++slab) {
    if (slabs_.buffer(layer, slab) == BufferId::none) continue;
    if (const Status status = fill_slab(slab); !status.ok())
      return {status.code(), "converting layer " + std::to_string(layer) + ": " + status.message()};
  }
  FormatId& known = side == Side::k ? spec_.layers[layer].format_k : spec_.layers[layer].format_v;
  const FormatId before = known;
  Rollback restore([&] { known = before; });
  known = format;
  if (prefixes_ != nullptr) prefixes_->set_content(cache_content_key(spec_));
  restore.complete();
  undo.complete();
  slabs_.replace(layer, std::move(fresh), old_bytes, new_bytes);
  facts = std::move(converted);
  if (wide_ != nullptr) convert_copies(layer);
  // Without host memory the limit's slabs stay as they were counted before, which is right, if not all that there could be.
  (void)within_memory([this]() -> Status {
    refresh_slab_limits();
    return {};
  });
  event(EventKind::convert, layer,
        static_cast<std::uint64_t>(facts.sides[0].format) << 32 | static_cast<std::uint64_t>(facts.sides[1].format));
  return {};
}

}  // namespace kvant
