// CacheImpl: attention mass. The kernel score adds it up after a layer's attention; here it is read, cleared, and moved with its
// tokens. It lies beside the slabs, all layers of a group together (params/attend.h, MASS).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "layer_run.hpp"
#include "params/attend.h"
#include "staging_room.hpp"

namespace kvant {
namespace {

constexpr double kUnit = 1.0 / 4294967296.0;  // of a mass word pair

}  // namespace

Status CacheImpl::need_mass() const {
  if (spec_.attention_mass) return {};
  return {StatusCode::failed_precondition, "this cache counts no attention mass: it was created without KVANT_CACHE_MASS, or attention_mass in its configuration"};
}

BufferRange CacheImpl::mass_range(std::uint32_t g, std::uint32_t page) const {
  const GroupGeometry& group = geometry_.groups[g];
  const std::uint32_t slab = group.slab_of(page);
  BufferRange range = slabs_.mass(g, slab);
  range.offset += (page - group.first_page(slab)) * group.mass_page_bytes;
  range.size = group.mass_page_bytes;
  return range;
}

MassPlace CacheImpl::mass_place(std::uint32_t layer) const {
  const GroupGeometry& group = geometry_.group_of(layer);
  const auto place = std::find(group.layers.begin(), group.layers.end(), layer) - group.layers.begin();
  return {static_cast<std::uint32_t>(static_cast<std::uint64_t>(place) * group.mass_layer_bytes / 4),
          static_cast<std::uint32_t>(group.mass_page_bytes / 4)};
}

// After the attention of the layer, whose log-sum-exps it needs: the same items, one dispatch a slab.
void CacheImpl::record_scores(const LayerRun& run, params::AttendParams attend) {
  const RunArgs& args = *run.args;
  const LayerGeometry& layer = geometry_.layers[run.layer];
  const GroupGeometry& group = geometry_.groups[run.group];
  const MassPlace place = mass_place(run.layer);
  attend.mass_offset = place.offset;
  attend.mass_page_stride = place.page_stride;
  attend.pages_offset = step_.groups[run.group].pages_offset;
  bool barrier = true;
  for (const LayerRun::Part& part : std::span(run.parts).first(run.part_count)) {
    const AttendVariant& variant = step_.variants[part.scored];
    const AttendConfig& config = part.config;
    const std::uint32_t tiles = (args.q_heads / run.kv_heads + config.heads_per_tile - 1) / config.heads_per_tile;
    attend.items_offset = variant.items_offset;
    for (const SlabItems& items : variant.plan.slabs) {
      if (items.slab == kNoSlab) continue;
      for (std::uint32_t done = 0; done < items.item_count;) {
        const std::uint32_t count = std::min(items.item_count - done, executor_.limits().max_groups[0]);
        attend.item_begin = items.item_begin + done;
        attend.page_begin = group.first_page(items.slab);
        Dispatch& dispatch = list_.add_dispatch(KernelId::score, "score", barrier);
        barrier = false;
        dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = config.local_size;
        dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(layer.sides[0].format);
        dispatch.spec[KVANT_SPEC_FORMAT_V] = dispatch.spec[KVANT_SPEC_FORMAT_K];  // V is not looked at: one pipeline for all its formats
        dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = run.head_dim_k;
        dispatch.spec[KVANT_SPEC_HEAD_DIM_V] = run.head_dim_k;
        dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = geometry_.page_tokens;
        dispatch.spec[KVANT_SPEC_IO_TYPE_IN] = static_cast<std::uint32_t>(args.q.type);
        dispatch.spec[KVANT_SPEC_FLAGS] = run.flags & ~(KVANT_ATTEND_SINKS | KVANT_ATTEND_LSE | KVANT_ROTATE_V | KVANT_CENTRE_V);  // two are in the log-sum-exps
        dispatch.spec[KVANT_SPEC_HEADS_PER_TILE] = config.heads_per_tile;
        dispatch.spec[KVANT_SPEC_QUERIES_PER_ITEM] = config.queries_per_item;
        std::memcpy(dispatch.push.data(), &attend, sizeof attend);
        dispatch.bindings[0] = slabs_.region(run.layer, Side::k, items.slab);
        dispatch.bindings[1] = slabs_.mass(run.group, items.slab);
        dispatch.bindings[2] = run.q.range;
        dispatch.bindings[4] = meta_.range();
        dispatch.bindings[6] = run.heads;
        dispatch.bindings[7] = run.lse.range;
        dispatch.groups = {count, run.kv_heads * tiles, 1};
        done += count;
      }
    }
  }
}

// Pages whose tokens come from elsewhere than append: nothing is known of them.
Status CacheImpl::clear_mass_pages(std::uint32_t g, std::span<const std::uint32_t> pages) {
  if (!spec_.attention_mass || pages.empty()) return {};
  list_.clear();
  bool barrier = true;
  for (const std::uint32_t page : pages) {
    list_.add_fill({mass_range(g, page), 0}, "clear mass", barrier);
    barrier = false;
  }
  return executor_.submit(list_).status();
}

// Of one layer's tokens in a page.
void CacheImpl::record_clear_mass(std::uint32_t layer, std::uint32_t page, std::uint32_t offset, std::uint64_t count) {
  if (!spec_.attention_mass) return;
  const std::uint32_t g = geometry_.layers[layer].group;
  const BufferRange all = mass_range(g, page);
  for (std::uint32_t head = 0; head < geometry_.groups[g].kv_heads; ++head) {
    const std::uint64_t at = (mass_place(layer).offset + (std::uint64_t{head} * geometry_.page_tokens + offset) * 2) * 4;
    list_.add_fill({{all.buffer, all.offset + at, count * 8}, 0}, "clear mass", false);
  }
}

// Tokens that a step takes without computing them.
Status CacheImpl::clear_fresh_mass() {
  if (!spec_.attention_mass) return {};
  const std::uint32_t page_tokens = geometry_.page_tokens;
  list_.clear();
  for (std::uint32_t layer = 0; layer < geometry_.layers.size(); ++layer) {
    const std::vector<std::int32_t>& slots = step_.groups[geometry_.layers[layer].group].batch.slots;
    for (std::size_t i = 0; i < slots.size();) {
      const auto page = static_cast<std::uint32_t>(slots[i]) / page_tokens;
      std::size_t end = i + 1;
      while (end < slots.size() && static_cast<std::uint32_t>(slots[end]) / page_tokens == page) ++end;
      record_clear_mass(layer, page, static_cast<std::uint32_t>(slots[i]) % page_tokens, end - i);
      i = end;
    }
  }
  return list_.commands.empty() ? Status() : executor_.submit(list_).status();
}

Status CacheImpl::download_mass(std::uint32_t g, std::span<const std::int32_t> pages, std::vector<std::uint64_t>& out) {
  const std::uint64_t page_bytes = geometry_.groups[g].mass_page_bytes;
  const std::size_t most = static_cast<std::size_t>(most_staged(executor_.limits(), page_bytes));
  out.assign(pages.size() * page_bytes / 8, 0);
  for (std::size_t first = 0; first < pages.size(); first += most) {
    const std::size_t count = std::min(most, pages.size() - first);
    KVANT_ASSIGN(const Staging staging, executor_.stage(count * page_bytes, BufferKind::readback));
    list_.clear();
    for (std::size_t i = 0; i < count; ++i) {
      if (pages[first + i] == kNoPage) continue;
      const BufferRange source = mass_range(g, static_cast<std::uint32_t>(pages[first + i]));
      list_.add_copy({source.buffer, source.offset, staging.range.buffer, staging.range.offset + i * page_bytes, page_bytes},
                     "download mass", list_.commands.empty());
    }
    if (list_.commands.empty()) continue;
    KVANT_ASSIGN(const Ticket ticket, executor_.submit(list_));
    KVANT_TRY(executor_.wait(ticket));
    for (std::size_t i = 0; i < count; ++i)
      if (pages[first + i] != kNoPage)
        std::memcpy(out.data() + (first + i) * page_bytes / 8, staging.data + i * page_bytes, page_bytes);
  }
  return {};
}

Status CacheImpl::upload_mass(std::uint32_t g, std::span<const std::int32_t> pages, std::span<const std::uint64_t> masses) {
  const std::uint64_t page_bytes = geometry_.groups[g].mass_page_bytes;
  const std::size_t most = static_cast<std::size_t>(most_staged(executor_.limits(), page_bytes));
  for (std::size_t first = 0; first < pages.size(); first += most) {
    const std::size_t count = std::min(most, pages.size() - first);
    KVANT_ASSIGN(const Staging staging, executor_.stage(count * page_bytes, BufferKind::upload));
    std::memcpy(staging.data, masses.data() + first * page_bytes / 8, count * page_bytes);
    list_.clear();
    for (std::size_t i = 0; i < count; ++i) {
      if (pages[first + i] == kNoPage) continue;
      const BufferRange target = mass_range(g, static_cast<std::uint32_t>(pages[first + i]));
      list_.add_copy({staging.range.buffer, staging.range.offset + i * page_bytes, target.buffer, target.offset, page_bytes},
                     "upload mass", list_.commands.empty());
    }
    if (!list_.commands.empty()) KVANT_TRY(executor_.submit(list_).status());
  }
  return {};
}

// Masses of the tokens that are kept, in the order of the pages that take them.
Status CacheImpl::gather_mass(const TokenMove& move, std::uint32_t g, std::vector<std::uint64_t>& out) {
  const std::uint32_t page_tokens = geometry_.page_tokens;
  const std::size_t page_words = geometry_.groups[g].mass_page_bytes / 8;
  std::vector<std::uint64_t> source;
  KVANT_TRY(download_mass(g, move.sequence->tables[g].pages().subspan(move.first_page), source));
  out.assign(move.pages[g].size() * page_words, 0);
  const std::uint64_t first_token = std::uint64_t{move.first_page} * page_tokens;
  for (std::uint64_t place = first_token; place < move.kept.size(); ++place) {
    const std::uint64_t from = move.kept[place] - first_token, to = place - first_token;
    for (std::size_t row = 0; row < page_words / page_tokens; ++row)  // layers and heads
      out[to / page_tokens * page_words + row * page_tokens + to % page_tokens] =
          source[from / page_tokens * page_words + row * page_tokens + from % page_tokens];
  }
  return {};
}

Status CacheImpl::attention_mass(SequenceId id, std::optional<std::uint32_t> layer, std::optional<std::uint32_t> kv_head,
                                 std::uint64_t begin, std::span<float> out) {
  KVANT_TRY(need_mass());
  KVANT_ASSIGN(const Sequence* const sequence, find(id));
  if (layer) KVANT_TRY(check_layer(*layer));
  if (begin > sequence->length || out.size() > sequence->length - begin)
    return {StatusCode::invalid_argument, "tokens " + std::to_string(begin) + " + " + std::to_string(out.size()) + " of " +
                                              sequence_text(id) + ", which has " + std::to_string(sequence->length)};
  std::vector<double> sums(out.size(), 0.0);
  std::vector<std::uint64_t> rows(out.size(), 0), words;  // rows: how many (layer, head) pairs have the token
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const GroupGeometry& group = geometry_.groups[g];
    if (layer && geometry_.layers[*layer].group != g) continue;
    if (kv_head && *kv_head >= group.kv_heads)
      return {StatusCode::invalid_argument, "kv_head (" + std::to_string(*kv_head) + ") is not less than " + std::to_string(group.kv_heads)};
    if (out.empty()) continue;
    const std::uint32_t page_tokens = geometry_.page_tokens;
    const auto first = static_cast<std::uint32_t>(begin / page_tokens);
    const auto last = static_cast<std::uint32_t>((begin + out.size() - 1) / page_tokens);
    const auto pages = sequence->tables[g].pages().subspan(first, last - first + 1);
    KVANT_TRY(download_mass(g, pages, words));
    const std::size_t page_words = group.mass_page_bytes / 8;
    const std::size_t chosen = layer ? mass_place(*layer).offset / 2 / page_tokens / group.kv_heads : 0;
    const std::size_t layers = layer ? 1 : group.layers.size();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::uint64_t token = begin + i - std::uint64_t{first} * page_tokens;
      if (pages[token / page_tokens] == kNoPage) continue;
      for (std::size_t l = chosen; l < chosen + layers; ++l)
        for (std::uint32_t head = kv_head.value_or(0); head < (kv_head ? *kv_head + 1 : group.kv_heads); ++head) {
          const std::size_t row = l * group.kv_heads + head;
          sums[i] += static_cast<double>(words[token / page_tokens * page_words + row * page_tokens + token % page_tokens]) * kUnit /
                     mass_group_[group.layers[l]];
          ++rows[i];
        }
    }
  }
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = rows[i] == 0 ? 0.0f : static_cast<float>(sums[i] / static_cast<double>(rows[i]));
  return {};
}

Status CacheImpl::clear_mass(SequenceId id) {
  KVANT_TRY(need_mass());
  KVANT_ASSIGN(const Sequence* const sequence, find(id));
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    std::vector<std::uint32_t> pages;
    for (const std::int32_t page : sequence->tables[g].pages())
      if (page != kNoPage) pages.push_back(static_cast<std::uint32_t>(page));
    KVANT_TRY(clear_mass_pages(g, pages));
  }
  return {};
}

}  // namespace kvant
