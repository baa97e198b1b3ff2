// GroupBatch: what one layer group must know of a step, as plain tables: where fresh tokens go, which sequences ask,
// and which pages hold their keys. Built from sequences or from the engine's own page tables; the planners read nothing
// else.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "geometry.hpp"
#include "params/attend.h"

namespace kvant {

// Fresh tokens [first, first + count) contain all those that go to `slab`; the kernel skips those of other slabs.
struct AppendSpan {
  std::uint32_t slab = 0, first = 0, count = 0;
};

struct GroupBatch {
  std::vector<std::int32_t> slots;         // per fresh token of the step; negative = skip
  std::vector<params::AttendSeq> seqs;     // sequences with queries
  std::vector<std::int32_t> pages;         // kv_indices of `seqs`, one after the other; kNoPage = hole
  std::vector<std::uint32_t> page_counts;  // per element of seqs
  // Per element of seqs: with how many pages it begins that the one before it begins with as well. Empty: not looked at.
  std::vector<std::uint32_t> common_pages;
  std::vector<AppendSpan> appends;         // by slab

  void clear();
};

// Fills batch.appends from batch.slots.
void find_append_spans(GroupBatch& batch, const GroupGeometry& group, std::uint32_t page_tokens);

// Fills batch.common_pages.
void find_common_pages(GroupBatch& batch);

// Queries and keys of the sequences whose query count is within [least, most]: the shape that tuning is asked about.
struct BatchShape {
  std::uint32_t sequences = 0;
  std::uint32_t max_queries = 0, total_queries = 0;
  std::uint64_t max_kv_len = 0, total_kv_len = 0;
};
BatchShape batch_shape(const GroupBatch& batch, const GroupGeometry& group, std::uint32_t least, std::uint32_t most);

}  // namespace kvant
