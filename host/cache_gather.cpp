// CacheImpl: a sequence without some of its tokens: what stays is brought together, on the device, codes as they are: in new pages,
// or, where the pool has none, by way of scratch memory in the sequence's own.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "params/grids.h"
#include "params/pages.h"
#include "rollback.hpp"
#include "staging_room.hpp"

namespace kvant {

// Places ascend and lie in the sequence. `may_miss`: tokens that have left a layer's window are no error.
Status CacheImpl::check_kept(const Sequence& sequence, std::span<const std::uint64_t> kept, bool may_miss) const {
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (i != 0 && kept[i] <= kept[i - 1])
      return {StatusCode::invalid_argument, "kept[" + std::to_string(i) + "] (" + std::to_string(kept[i]) +
                                                ") is not greater than the one before, " + std::to_string(kept[i - 1])};
    if (kept[i] >= sequence.length)
      return {StatusCode::invalid_argument, "kept[" + std::to_string(i) + "] (" + std::to_string(kept[i]) +
                                                ") is not less than the sequence's " + std::to_string(sequence.length) + " tokens"};
    for (std::size_t g = 0; g < pools_.size() && !may_miss; ++g)
      if (sequence.tables[g].at(static_cast<std::uint32_t>(kept[i] / geometry_.page_tokens)) == kNoPage)
        return {StatusCode::failed_precondition, "token " + std::to_string(kept[i]) + " of " + sequence_text(sequence.id) +
                                                     " has left the window of " + std::to_string(geometry_.groups[g].window) +
                                                     " tokens, and could not be kept"};
  }
  return {};
}

// Pages that stay where they are must hold what sliding windows of a sequence of `length` tokens see.
Status CacheImpl::check_windows_kept(const Sequence& sequence, std::uint64_t length, std::uint32_t first_moved) const {
  if (length < sequence.least_length)
    return {StatusCode::failed_precondition, sequence_text(sequence.id) + " was pruned to " + std::to_string(sequence.least_length) +
                                                 " tokens and cannot go on with " + std::to_string(length)};
  for (std::size_t g = 0; g < pools_.size(); ++g) {
    const PageSpan past = pages_past_window(geometry_.groups[g], length, geometry_.page_tokens);
    const std::uint32_t hole = sequence.tables[g].first_hole(past.empty() ? 0 : past.end, first_moved);
    if (geometry_.groups[g].window == 0 || hole >= first_moved) continue;
    return {StatusCode::failed_precondition, "token " + std::to_string(std::uint64_t{hole} * geometry_.page_tokens) + " of " +
                                                 sequence_text(sequence.id) + " has left the window of " +
                                                 std::to_string(geometry_.groups[g].window) + " tokens, and a continuation at token " +
                                                 std::to_string(length) + " would need it"};
  }
  return {};
}

// One job a pair of slabs: tokens from `move.first_page` on, which go to `to`, a place a page; those without a slab are holes.
std::vector<CacheImpl::GatherJob> CacheImpl::gather_jobs(const TokenMove& move, std::uint32_t g,
                                                         std::span<const PagePlace> to) const {
  const GroupGeometry& group = geometry_.groups[g];
  const PageTable& table = move.sequence->tables[g];
  const std::uint32_t page_tokens = geometry_.page_tokens;
  std::map<std::pair<std::uint32_t, std::uint32_t>, GatherJob> jobs;
  for (std::uint32_t i = 0; i < to.size(); ++i) {
    if (to[i].slab == kNoSlab) continue;
    std::map<std::uint32_t, std::vector<std::int32_t>> entries;  // by source slab
    for (std::uint32_t offset = 0; offset < page_tokens; ++offset) {
      const std::uint64_t place = (std::uint64_t{move.first_page} + i) * page_tokens + offset;
      if (place >= move.kept.size()) break;
      const std::int32_t source = table.at(static_cast<std::uint32_t>(move.kept[place] / page_tokens));
      if (source == kNoPage) continue;
      const std::uint32_t slab = group.slab_of(static_cast<std::uint32_t>(source));
      std::vector<std::int32_t>& entry = entries[slab];
      if (entry.empty()) {
        entry.assign(page_tokens + 1, -1);
        entry[0] = static_cast<std::int32_t>(to[i].local);
      }
      entry[offset + 1] = static_cast<std::int32_t>((static_cast<std::uint32_t>(source) - group.first_page(slab)) * page_tokens +
                                                    move.kept[place] % page_tokens);
    }
    for (const auto& [slab, entry] : entries) {
      GatherJob& job = jobs[{slab, to[i].slab}];
      job.source_slab = slab;
      job.destination_slab = to[i].slab;
      job.map.insert(job.map.end(), entry.begin(), entry.end());
    }
  }
  std::vector<GatherJob> list;
  for (auto& [slabs, job] : jobs) list.push_back(std::move(job));
  return list;
}

void CacheImpl::record_gather(std::uint32_t layer, Side side, std::uint32_t source_slab, const BufferRange& destination,
                              const BufferRange& map, std::size_t pages, bool barrier) {
  const SideGeometry& facts = geometry_.layers[layer].side(side);
  const std::uint32_t local_size = executor_.page_kernel_config(KernelId::gather).local_size;
  params::GatherParams gather{};
  gather.page_count = static_cast<std::uint32_t>(pages);
  gather.kv_heads = geometry_.group_of(layer).kv_heads;
  Dispatch& dispatch = list_.add_dispatch(KernelId::gather, "gather", barrier);
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
  dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(facts.format);
  dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = facts.head_dim;
  dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = geometry_.page_tokens;
  std::memcpy(dispatch.push.data(), &gather, sizeof gather);
  dispatch.bindings[0] = slabs_.region(layer, side, source_slab);
  dispatch.bindings[1] = destination;
  dispatch.bindings[2] = map;
  dispatch.groups = params::gather_grid(facts.page_bytes, gather.page_count, local_size, executor_.limits().max_groups[0],
                                        executor_.limits().max_groups[1]);
}

// Calls record(job, staged map, pages) for parts of the jobs that fit into the staging ring, and submits each.
template <typename F>
Status CacheImpl::for_gather_parts(std::span<const GatherJob> jobs, F&& record) {
  const std::size_t entry = geometry_.page_tokens + std::size_t{1};
  const std::size_t most = static_cast<std::size_t>(most_staged(executor_.limits(), entry * 4));
  for (const GatherJob& job : jobs)
    for (std::size_t done = 0; done < job.map.size() / entry; done += most) {
      const std::size_t count = std::min(most, job.map.size() / entry - done);
      KVANT_ASSIGN(const Staging staging, executor_.stage(count * entry * 4, BufferKind::upload));
      std::memcpy(staging.data, job.map.data() + done * entry, count * entry * 4);
      list_.clear();
      record(job, staging.range, count);
      KVANT_TRY(executor_.submit(list_).status());
    }
  return {};
}

// Into pages of their own, of which `move.pages` are the first free ones.
Status CacheImpl::gather_to_new_pages(TokenMove& move) {
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const GroupGeometry& group = geometry_.groups[g];
    std::vector<TakenPage> taken;
    std::vector<PagePlace> to;
    move.taken.reserve(move.taken.size() + move.pages[g].size());  // what is taken is known to who gives it back
    for (std::int32_t& page : move.pages[g]) {
      to.push_back({});
      if (page == kNoPage) continue;
      page = pools_[g].take(move.sequence->tables[g].last());
      const auto id = static_cast<std::uint32_t>(page);
      move.taken.push_back({g, id});
      taken.push_back({0, g, 0, page, kNoPage});
      to.back() = {group.slab_of(id), id - group.first_page(group.slab_of(id))};
    }
    if (Status status = ready_pages(taken); !status.ok()) {
      move.no_memory = status.code() == StatusCode::resource_exhausted;
      return status;
    }
    // Tokens that have left a window are read as zeros, not as what somebody else had there.
    list_.clear();
    for (const TakenPage& page : group.window != 0 ? std::span<const TakenPage>(taken) : std::span<const TakenPage>())
      for (const std::uint32_t layer : group.layers)
        for (const Side side : {Side::k, Side::v})
          list_.add_fill({page_range(layer, side, static_cast<std::uint32_t>(page.page)), 0}, "gather", false);
    if (!list_.commands.empty()) KVANT_TRY(executor_.submit(list_).status());
    const auto jobs = gather_jobs(move, g, to);
    KVANT_TRY(for_gather_parts(jobs, [&](const GatherJob& job, const BufferRange& map, std::size_t pages) {
      bool barrier = true;  // jobs of the same destination write into the same words
      for (const std::uint32_t layer : group.layers)
        for (const Side side : {Side::k, Side::v}) {
          record_gather(layer, side, job.source_slab, slabs_.region(layer, side, job.destination_slab), map, pages, barrier);
          barrier = false;
        }
    }));
  }
  return {};
}

// Into the sequence's own pages that nobody else holds, and new ones as far as those are too few. A page that is written may be
// one that is read: all of a layer's side goes to scratch memory first. `move.spoiled`: from then on the old tokens are not there.
Status CacheImpl::gather_in_place(TokenMove& move) {
  std::vector<std::vector<PagePlace>> places(pools_.size());
  std::uint64_t scratch_bytes = 0;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const PageTable& table = move.sequence->tables[g];
    std::vector<std::uint32_t> own;
    for (std::uint32_t i = table.size(); i-- > move.first_page;)
      if (table.at(i) != kNoPage && !cooled(g, table.at(i)) && pools_[g].references(static_cast<std::uint32_t>(table.at(i))) == 1)
        own.push_back(static_cast<std::uint32_t>(table.at(i)));
    const auto wanted = static_cast<std::size_t>(std::count_if(move.pages[g].begin(), move.pages[g].end(),
                                                               [](std::int32_t page) { return page != kNoPage; }));
    KVANT_TRY(make_room(g, wanted - std::min(wanted, own.size())));
    std::vector<SlabId> slabs;
    std::uint32_t at = 0;
    slabs.reserve(move.pages[g].size());
    move.taken.reserve(move.taken.size() + move.pages[g].size());
    for (std::int32_t& page : move.pages[g]) {
      places[g].push_back({});
      if (page == kNoPage) continue;
      if (own.empty()) {
        page = pools_[g].take(table.last());
        slabs.push_back({g, geometry_.groups[g].slab_of(static_cast<std::uint32_t>(page))});
      } else {
        page = static_cast<std::int32_t>(own.back());  // the first ones of the sequence
        own.pop_back();
        pools_[g].add_reference(static_cast<std::uint32_t>(page));
      }
      move.taken.push_back({g, static_cast<std::uint32_t>(page)});
      places[g].back() = {at / geometry_.groups[g].pages_per_slab, at % geometry_.groups[g].pages_per_slab};
      ++at;
    }
    for (const std::uint32_t layer : geometry_.groups[g].layers)
      for (const SideGeometry& side : geometry_.layers[layer].sides)
        scratch_bytes = std::max(scratch_bytes, std::min(at, geometry_.groups[g].pages_per_slab) * side.page_bytes);
    KVANT_TRY(slabs_.ensure(slabs, nullptr));
  }
  std::vector<std::unique_ptr<ScratchBuffer>> scratch;
  for (std::uint32_t g = 0; g < pools_.size(); ++g)
    for (const PagePlace& place : places[g])
      while (place.slab != kNoSlab && scratch.size() <= place.slab) {
        scratch.push_back(std::make_unique<ScratchBuffer>(executor_));
        KVANT_TRY(scratch.back()->ensure(scratch_bytes, nullptr));
      }
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const auto jobs = gather_jobs(move, g, places[g]);
    for (const std::uint32_t layer : geometry_.groups[g].layers)
      for (const Side side : {Side::k, Side::v}) {
        const std::uint64_t bytes = geometry_.layers[layer].side(side).page_bytes;
        if (geometry_.groups[g].window != 0) {
          list_.clear();
          for (const auto& buffer : scratch) list_.add_fill({buffer->range(buffer->size()), 0}, "gather", false);
          KVANT_TRY(executor_.submit(list_).status());
        }
        KVANT_TRY(for_gather_parts(jobs, [&](const GatherJob& job, const BufferRange& map, std::size_t pages) {
          const ScratchBuffer& target = *scratch[job.destination_slab];
          record_gather(layer, side, job.source_slab, target.range(target.size()), map, pages, true);
        }));
        list_.clear();
        for (std::size_t i = 0; i < places[g].size(); ++i) {
          const PagePlace& place = places[g][i];
          if (place.slab == kNoSlab) continue;
          const BufferRange target = page_range(layer, side, static_cast<std::uint32_t>(move.pages[g][i]));
          list_.add_copy({scratch[place.slab]->buffer(), place.local * bytes, target.buffer, target.offset, bytes}, "gather",
                         list_.commands.empty());
        }
        if (list_.commands.empty()) continue;
        move.spoiled = true;
        KVANT_TRY(executor_.submit(list_).status());
      }
  }
  return {};
}

// The sequence without the tokens between `kept`, which begin to differ from all of them at the place `same`.
Status CacheImpl::move_tokens(Sequence& sequence, std::span<const std::uint64_t> kept, std::uint64_t same) {
  const std::uint32_t page_tokens = geometry_.page_tokens;
  TokenMove move;
  move.sequence = &sequence;
  move.kept = kept;
  move.first_page = static_cast<std::uint32_t>(same / page_tokens);
  // Codes are brought together as they are: those of cooled pages first take their layer's format.
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    std::vector<std::uint32_t> indices;
    for (const std::uint64_t token : kept.subspan(static_cast<std::size_t>(std::uint64_t{move.first_page} * page_tokens))) {
      const auto index = static_cast<std::uint32_t>(token / page_tokens);
      if ((indices.empty() || indices.back() != index) && cooled(g, sequence.tables[g].at(index))) indices.push_back(index);
    }
    KVANT_TRY(replace_pages(sequence, g, indices));
  }
  const auto count = static_cast<std::uint32_t>(divide_up(kept.size(), page_tokens)) - move.first_page;
  bool room = true, withdrawn = false;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const PageSpan past = pages_past_window(geometry_.groups[g], kept.size(), page_tokens);
    move.pages.emplace_back(count, 0);
    std::uint32_t wanted = count;
    for (std::uint32_t i = 0; i < count; ++i)
      if (move.first_page + i >= past.begin && move.first_page + i < past.end) {
        move.pages[g][i] = kNoPage;
        --wanted;
      }
    room = room && make_room(g, wanted).ok();
  }
  std::vector<std::vector<std::uint64_t>> masses(pools_.size());
  const auto give_back = [&] {
    for (const auto& [group, page] : move.taken) pools_[group].release(page);
    move.taken.clear();
  };
  std::vector<std::int32_t> tokens = sequence.tokens;
  for (PageTable& table : sequence.tables) table.reserve(move.first_page + count);
  const auto gather = [&]() -> Status {
    if (spec_.attention_mass)
      for (std::uint32_t g = 0; g < pools_.size(); ++g) KVANT_TRY(gather_mass(move, g, masses[g]));
    if (room) {
      const Status moved = gather_to_new_pages(move);
      if (!move.no_memory) KVANT_TRY(moved);
      room = !move.no_memory;
    }
    if (!room) {  // pages, or memory for their slabs
      give_back();
      for (std::uint32_t g = 0; g < pools_.size(); ++g) {
        const auto wanted = static_cast<std::uint64_t>(std::count_if(move.pages[g].begin(), move.pages[g].end(),
                                                                     [](std::int32_t page) { return page != kNoPage; }));
        if (!can_write_pages(sequence, g, move.first_page, wanted)) return no_pages(g, wanted);
      }
      withdrawn = true;
      unpublish(sequence, same);
      KVANT_TRY(gather_in_place(move));
    }
    if (spec_.attention_mass)
      for (std::uint32_t g = 0; g < pools_.size(); ++g) KVANT_TRY(upload_mass(g, move.pages[g], masses[g]));
    return {};
  };
  if (const Status status = within_memory(gather); !status.ok()) {
    give_back();
    if (!move.spoiled) {
      sequence.tokens = std::move(tokens);
      if (withdrawn) publish(sequence);
      return status;
    }
    const bool windows = std::any_of(geometry_.groups.begin(), geometry_.groups.end(), [](const auto& g) { return g.window != 0; });
    const std::uint64_t left = windows ? 0 : std::uint64_t{move.first_page} * page_tokens;
    drop_copies(sequence, left);
    shrink_sequence(sequence, pools_, left, page_tokens);
    forget_tokens(sequence, left);
    if (left == 0) {
      sequence.pruned = false;
      sequence.least_length = 0;
    }
    return {status.code(), status.message() + "; of " + sequence_text(sequence.id) + " only the first " + std::to_string(left) +
                               " tokens are left"};
  }
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    bool narrowed = false;
    for (std::uint32_t i = move.first_page; i < sequence.tables[g].size(); ++i) narrowed = narrowed || recoded(g, sequence.tables[g].at(i));
    sequence.tables[g].shrink(move.first_page, pools_[g]);
    for (const std::int32_t page : move.pages[g]) {
      if (narrowed && page != kNoPage) pools_[g].set_recoded(static_cast<std::uint32_t>(page));
      sequence.tables[g].push(page);
    }
  }
  drop_copies(sequence, same);
  sequence.length = kept.size();
  sequence.reused = std::min(sequence.reused, same);
  forget_tokens(sequence, same);
  return {};
}

Status CacheImpl::keep_tokens(SequenceId id, std::span<const std::uint64_t> kept) {
  KVANT_TRY(check_no_step("drop tokens"));
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  std::uint64_t same = 0;
  while (same < kept.size() && kept[same] == same) ++same;
  if (same == kept.size()) return truncate_sequence(id, same);
  const std::uint64_t first = same / geometry_.page_tokens * geometry_.page_tokens;
  KVANT_TRY(check_kept(*sequence, kept.subspan(first), false));
  KVANT_TRY(check_windows_kept(*sequence, kept.size(), static_cast<std::uint32_t>(first / geometry_.page_tokens)));
  return move_tokens(*sequence, kept, same);
}

}  // namespace kvant
