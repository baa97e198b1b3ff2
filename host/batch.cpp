#include "batch.hpp"

#include <algorithm>

namespace kvant {

void GroupBatch::clear() {
  slots.clear();
  seqs.clear();
  pages.clear();
  page_counts.clear();
  common_pages.clear();
  appends.clear();
}

void find_append_spans(GroupBatch& batch, const GroupGeometry& group, std::uint32_t page_tokens) {
  batch.appends.clear();
  for (std::uint32_t i = 0; i < batch.slots.size(); ++i) {
    if (batch.slots[i] < 0) continue;
    const std::uint32_t slab = group.slab_of(static_cast<std::uint32_t>(batch.slots[i]) / page_tokens);
    // Few slabs are touched in a step, and neighbours mostly share one: a linear search from the back is enough.
    auto span = std::find_if(batch.appends.rbegin(), batch.appends.rend(),
                             [slab](const AppendSpan& s) { return s.slab == slab; });
    if (span == batch.appends.rend()) {
      batch.appends.push_back({slab, i, 1});
    } else {
      span->count = i - span->first + 1;
    }
  }
}

void find_common_pages(GroupBatch& batch) {
  batch.common_pages.assign(batch.seqs.size(), 0);
  for (std::size_t s = 1; s < batch.seqs.size(); ++s) {
    const auto before = batch.pages.begin() + batch.seqs[s - 1].page_begin, own = batch.pages.begin() + batch.seqs[s].page_begin;
    const auto differ = std::mismatch(own, own + batch.page_counts[s], before, before + batch.page_counts[s - 1]);
    batch.common_pages[s] = static_cast<std::uint32_t>(differ.first - own);
  }
}

BatchShape batch_shape(const GroupBatch& batch, const GroupGeometry& group, std::uint32_t least, std::uint32_t most) {
  BatchShape shape;
  for (const params::AttendSeq& seq : batch.seqs) {
    if (seq.q_len < least || seq.q_len > most) continue;
    std::uint64_t kv_len = seq.kv_len;
    if (group.window != 0) kv_len = std::min(kv_len, std::uint64_t{group.window} + group.window_sinks + seq.q_len);
    ++shape.sequences;
    shape.max_queries = std::max(shape.max_queries, seq.q_len);
    shape.total_queries += seq.q_len;
    shape.max_kv_len = std::max(shape.max_kv_len, kv_len);
    shape.total_kv_len += kv_len;
  }
  return shape;
}

}  // namespace kvant
