// CacheImpl: a sequence without some of its tokens: what stays is brought together in new pages, on the device, codes as they are.
#include <algorithm>
#include <cassert>
#include <cstring>
#include <map>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "params/grids.h"
#include "params/pages.h"

namespace kvant {

Status CacheImpl::check_kept(const Sequence& sequence, std::span<const std::uint64_t> kept) const {
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (i != 0 && kept[i] <= kept[i - 1])
      return {StatusCode::invalid_argument, "kept[" + std::to_string(i) + "] (" + std::to_string(kept[i]) +
                                                ") is not greater than the one before, " + std::to_string(kept[i - 1])};
    if (kept[i] >= sequence.length)
      return {StatusCode::invalid_argument, "kept[" + std::to_string(i) + "] (" + std::to_string(kept[i]) +
                                                ") is not less than the sequence's " + std::to_string(sequence.length) + " tokens"};
    for (std::size_t g = 0; g < pools_.size(); ++g)
      if (sequence.tables[g].at(static_cast<std::uint32_t>(kept[i] / geometry_.page_tokens)) == kNoPage)
        return {StatusCode::failed_precondition, "token " + std::to_string(kept[i]) + " of " + sequence_text(sequence.id) +
                                                     " has left the window of " + std::to_string(geometry_.groups[g].window) +
                                                     " tokens, and could not be kept"};
  }
  return {};
}

// One job a pair of slabs: tokens from `first_page` on, which go to `pages`.
std::vector<CacheImpl::GatherJob> CacheImpl::gather_jobs(const PageTable& table, std::uint32_t g,
                                                         std::span<const std::uint64_t> kept, std::uint32_t first_page,
                                                         std::span<const std::int32_t> pages) const {
  const GroupGeometry& group = geometry_.groups[g];
  const std::uint32_t page_tokens = geometry_.page_tokens;
  std::map<std::pair<std::uint32_t, std::uint32_t>, GatherJob> jobs;
  for (std::uint32_t i = 0; i < pages.size(); ++i) {
    const auto destination = static_cast<std::uint32_t>(pages[i]);
    std::map<std::uint32_t, std::vector<std::int32_t>> entries;  // by source slab
    for (std::uint32_t offset = 0; offset < page_tokens; ++offset) {
      const std::uint64_t place = (std::uint64_t{first_page} + i) * page_tokens + offset;
      if (place >= kept.size()) break;
      const auto source = static_cast<std::uint32_t>(table.at(static_cast<std::uint32_t>(kept[place] / page_tokens)));
      const std::uint32_t slab = group.slab_of(source);
      std::vector<std::int32_t>& entry = entries[slab];
      if (entry.empty()) {
        entry.assign(page_tokens + 1, -1);
        entry[0] = static_cast<std::int32_t>(destination - group.first_page(group.slab_of(destination)));
      }
      entry[offset + 1] =
          static_cast<std::int32_t>((source - group.first_page(slab)) * page_tokens + kept[place] % page_tokens);
    }
    for (const auto& [slab, entry] : entries) {
      GatherJob& job = jobs[{slab, group.slab_of(destination)}];
      job.source_slab = slab;
      job.destination_slab = group.slab_of(destination);
      job.map.insert(job.map.end(), entry.begin(), entry.end());
    }
  }
  std::vector<GatherJob> list;
  for (auto& [slabs, job] : jobs) list.push_back(std::move(job));
  return list;
}

Status CacheImpl::run_gather(std::uint32_t g, std::span<const GatherJob> jobs) {
  const GroupGeometry& group = geometry_.groups[g];
  const ExecutorLimits& limits = executor_.limits();
  const std::uint32_t local_size = executor_.page_kernel_config(KernelId::gather).local_size;
  const std::size_t entry = geometry_.page_tokens + std::size_t{1};
  const std::size_t most = std::max<std::size_t>(1, limits.max_staging_bytes / 2 / (entry * 4));  // pages of one staged map
  for (const GatherJob& job : jobs)
    for (std::size_t done = 0; done < job.map.size() / entry; done += most) {
      const std::size_t count = std::min(most, job.map.size() / entry - done);
      KVANT_ASSIGN(const Staging staging, executor_.stage(count * entry * 4, BufferKind::upload));
      std::memcpy(staging.data, job.map.data() + done * entry, count * entry * 4);
      list_.clear();
      bool barrier = true;  // jobs of the same destination write into the same words
      for (const std::uint32_t layer : group.layers)
        for (const Side side : {Side::k, Side::v}) {
          const SideGeometry& facts = geometry_.layers[layer].side(side);
          params::GatherParams gather{};
          gather.page_count = static_cast<std::uint32_t>(count);
          gather.kv_heads = group.kv_heads;
          Dispatch& dispatch = list_.add_dispatch(KernelId::gather, "gather", barrier);
          barrier = false;
          dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
          dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(facts.format);
          dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = facts.head_dim;
          dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = geometry_.page_tokens;
          std::memcpy(dispatch.push.data(), &gather, sizeof gather);
          dispatch.bindings[0] = slabs_.region(layer, side, job.source_slab);
          dispatch.bindings[1] = slabs_.region(layer, side, job.destination_slab);
          dispatch.bindings[2] = staging.range;
          dispatch.groups = params::gather_grid(facts.page_bytes, gather.page_count, local_size, limits.max_groups[0],
                                                limits.max_groups[1]);
        }
      KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, executor_.submit(list_));
    }
  return {};
}

Status CacheImpl::keep_tokens(SequenceId id, std::span<const std::uint64_t> kept) {
  KVANT_TRY(check_no_step("drop tokens"));
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  const std::uint32_t page_tokens = geometry_.page_tokens;
  std::uint64_t same = 0;
  while (same < kept.size() && kept[same] == same) ++same;
  if (same == kept.size()) return truncate_sequence(id, same);
  KVANT_TRY(check_kept(*sequence, kept.subspan(same / page_tokens * page_tokens)));

  const auto first_page = static_cast<std::uint32_t>(same / page_tokens);
  const auto count = static_cast<std::uint32_t>(divide_up(kept.size(), page_tokens)) - first_page;
  std::vector<std::vector<std::int32_t>> pages(pools_.size());
  const auto give_back = [&] {
    for (std::size_t g = 0; g < pools_.size(); ++g)
      for (const std::int32_t page : pages[g]) pools_[g].release(static_cast<std::uint32_t>(page));
  };
  const auto move = [&]() -> Status {
    for (std::uint32_t g = 0; g < pools_.size(); ++g) KVANT_TRY(make_room(g, count));
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      std::vector<SlabId> slabs, created;
      std::vector<TakenPage> taken;
      for (std::uint32_t i = 0; i < count; ++i) {
        pages[g].push_back(pools_[g].take(sequence->tables[g].last()));
        slabs.push_back({g, geometry_.groups[g].slab_of(static_cast<std::uint32_t>(pages[g].back()))});
        taken.push_back({0, g, first_page + i, pages[g].back(), kNoPage});
      }
      KVANT_TRY(slabs_.ensure(slabs, &created));
      KVANT_TRY(poison_pages(created, taken));
      KVANT_TRY(run_gather(g, gather_jobs(sequence->tables[g], g, kept, first_page, pages[g])));
    }
    return {};
  };
  if (const Status status = move(); !status.ok()) {
    give_back();
    return status;
  }
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    sequence->tables[g].shrink(first_page, pools_[g]);
    for (const std::int32_t page : pages[g]) sequence->tables[g].push(page);
  }
  sequence->length = kept.size();
  forget_tokens(*sequence, same);
  return {};
}

}  // namespace kvant
