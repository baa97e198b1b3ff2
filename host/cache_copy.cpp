// CacheImpl: pages copied on the device, codes as they are. Between grades V is decoded and encoded in the other grade's format.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "cache_impl.hpp"
#include "params/grids.h"
#include "params/pages.h"
#include "staging_room.hpp"

namespace kvant {

void CacheImpl::record_copy(const params::CopyParams& copy, const BufferRange& source, const BufferRange& destination,
                            const BufferRange& pairs) {
  const ExecutorLimits& limits = executor_.limits();
  const std::uint32_t local_size = executor_.page_kernel_config(KernelId::copy).local_size;
  Dispatch& dispatch = list_.add_dispatch(KernelId::copy, "copy", false);
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
  std::memcpy(dispatch.push.data(), &copy, sizeof copy);
  dispatch.bindings[0] = source;
  dispatch.bindings[1] = destination;
  dispatch.bindings[2] = pairs;
  dispatch.groups =
      params::copy_grid(copy.page_words16, copy.pair_count, local_size, limits.max_groups[0], limits.max_groups[1]);
}

void CacheImpl::record_convert(const params::ConvertParams& convert, const SideGeometry& from, FormatId to, const BufferRange& source,
                               const BufferRange& destination, const BufferRange& triples, bool barrier) {
  const ExecutorLimits& limits = executor_.limits();
  const std::uint32_t local_size = executor_.page_kernel_config(KernelId::convert).local_size;
  Dispatch& dispatch = list_.add_dispatch(KernelId::convert, "convert", barrier);
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
  dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(from.format);
  dispatch.spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(to);
  dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = from.head_dim;
  dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = geometry_.page_tokens;
  std::memcpy(dispatch.push.data(), &convert, sizeof convert);
  dispatch.bindings[0] = source;
  dispatch.bindings[1] = destination;
  dispatch.bindings[2] = triples;
  dispatch.groups = params::convert_grid(convert.kv_heads, geometry_.page_tokens, from.head_dim, format_info(to).block, convert.triple_count,
                                         local_size, limits.max_groups[0], limits.max_groups[1]);
}

// All pairs, all layers of their groups, both sides: one submit. No page is both a source and a destination.
Status CacheImpl::device_copy_pages(std::span<const PagePair> pairs) {
  if (pairs.empty()) return {};
  for (const PagePair& pair : pairs)
    if (pools_[pair.group].recoded(pair.source)) pools_[pair.group].set_recoded(pair.destination);
  struct Job {
    std::uint32_t group, source_slab, destination_slab, source, destination;  // pages local to their slabs
    auto slabs() const { return std::tie(group, source_slab, destination_slab); }
  };
  std::vector<Job> jobs;
  for (const PagePair& pair : pairs) {
    const GroupGeometry& group = geometry_.groups[pair.group];
    const std::uint32_t source_slab = group.slab_of(pair.source), destination_slab = group.slab_of(pair.destination);
    jobs.push_back({pair.group, source_slab, destination_slab, pair.source - group.first_page(source_slab),
                    pair.destination - group.first_page(destination_slab)});
  }
  std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.slabs() < b.slabs(); });
  // Of one staged table: a pair and a triple each.
  constexpr std::size_t kPairBytes = 8, kTripleBytes = 12;
  const std::size_t most = static_cast<std::size_t>(most_staged(executor_.limits(), kPairBytes + kTripleBytes));

  for (std::size_t first = 0; first < jobs.size(); first += most) {
    const std::size_t count = std::min(jobs.size() - first, most);
    const std::span<const Job> part = std::span(jobs).subspan(first, count);
    KVANT_ASSIGN(const Staging staging, executor_.stage(count * (kPairBytes + kTripleBytes), BufferKind::upload));
    for (std::size_t i = 0; i < count; ++i) {
      const std::array<std::uint32_t, 3> triple{part[i].source, part[i].destination, geometry_.page_tokens};
      std::memcpy(staging.data + i * kPairBytes, triple.data(), kPairBytes);
      std::memcpy(staging.data + count * kPairBytes + i * kTripleBytes, triple.data(), kTripleBytes);
    }
    list_.clear();
    for (std::size_t begin = 0; begin < count;) {
      std::size_t end = begin;
      while (end < count && part[end].slabs() == part[begin].slabs()) ++end;
      const Job& job = part[begin];
      const GroupGeometry& group = geometry_.groups[job.group];
      params::CopyParams copy{};
      copy.pairs_offset = static_cast<std::uint32_t>(begin * 2);
      copy.pair_count = static_cast<std::uint32_t>(end - begin);
      for (const std::uint32_t layer : group.layers)
        for (const Side side : {Side::k, Side::v}) {
          const SideGeometry& from = geometry_.layers[layer].side(side, group.grade_of(job.source_slab));
          const SideGeometry& to = geometry_.layers[layer].side(side, group.grade_of(job.destination_slab));
          const BufferRange source = slabs_.region(layer, side, job.source_slab), destination = slabs_.region(layer, side, job.destination_slab);
          if (from.format == to.format) {
            copy.page_words16 = static_cast<std::uint32_t>(from.page_bytes / 16);
            record_copy(copy, source, destination, staging.range);
          } else {
            params::ConvertParams convert{};
            convert.triples_offset = static_cast<std::uint32_t>(count * 2 + begin * 3);
            convert.triple_count = copy.pair_count;
            convert.kv_heads = group.kv_heads;
            record_convert(convert, from, to.format, source, destination, staging.range, false);
          }
        }
      if (spec_.attention_mass) {
        copy.page_words16 = static_cast<std::uint32_t>(group.mass_page_bytes / 16);
        record_copy(copy, slabs_.mass(job.group, job.source_slab), slabs_.mass(job.group, job.destination_slab), staging.range);
      }
      begin = end;
    }
    KVANT_TRY(executor_.submit(list_).status());
  }
  return {};
}

}  // namespace kvant
