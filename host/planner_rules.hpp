// What the planner's two files share.
#pragma once

#include <algorithm>

#include "planner.hpp"

namespace kvant::planner {

// Cuts lie at its multiples; 0: anywhere.
inline std::uint32_t step_of(const ItemCut& cut) {
  if (cut.kv_per_item == 0 || cut.kv_split == 0) return std::max(cut.kv_per_item, cut.kv_split);
  return std::min(cut.kv_per_item, cut.kv_split);
}

inline bool asked(const params::AttendSeq& seq, const AttendRequest& request) {
  return seq.q_len >= request.least_queries && seq.q_len <= request.most_queries;
}

}  // namespace kvant::planner
