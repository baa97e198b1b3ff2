#include "shared_keys.hpp"

#include <limits>

namespace kvant {

std::uint32_t keys_seen_by_all(const params::AttendSeq& seq, bool causal) {
  std::int64_t end = std::min(seq.kv_len, seq.mask_row_words != 0 ? seq.mask_kv_begin : seq.kv_len);
  if (causal) end = std::clamp<std::int64_t>(std::int64_t{seq.q_pos_begin} + 1, 0, end);
  return static_cast<std::uint32_t>(end);
}

void find_common_tokens(const GroupBatch& batch, std::uint32_t page_tokens, const SharedAsk& ask, std::vector<std::uint32_t>& common) {
  // Positions of a run's queries, which follow its keys, stay below 2^31.
  constexpr std::uint64_t kMostKeys = std::numeric_limits<std::int32_t>::max() - (1u << 20);
  const std::vector<params::AttendSeq>& seqs = batch.seqs;
  const auto asks = [&](const params::AttendSeq& seq) { return seq.q_len >= ask.least && seq.q_len <= ask.most; };
  common.assign(seqs.size(), 0);
  for (std::size_t s = 1; s < batch.common_pages.size(); ++s) {
    if (!asks(seqs[s - 1]) || !asks(seqs[s])) continue;
    const std::uint64_t seen = std::min(keys_seen_by_all(seqs[s - 1], ask.causal), keys_seen_by_all(seqs[s], ask.causal));
    const std::uint64_t tokens = std::min({std::uint64_t{batch.common_pages[s]} * page_tokens, seen, kMostKeys});
    if (tokens >= kLeastSharedKeys) common[s] = static_cast<std::uint32_t>(tokens - tokens % page_tokens);
  }
}

SharedShape shared_shape(const GroupBatch& batch, std::span<const std::uint32_t> common) {
  SharedShape shape;
  const auto shared = [&](std::uint32_t first, std::uint32_t last, std::uint32_t begin, std::uint32_t end, int) {
    const params::AttendSeq &from = batch.seqs[first], &to = batch.seqs[last - 1];
    const std::uint32_t queries = to.q_begin + to.q_len - from.q_begin, keys = end - begin;
    if (keys > shape.max_kv_len) {
      shape.max_kv_len = keys;
      shape.max_queries = queries;
    }
    shape.total_kv_len += keys;
    shape.total_queries += queries;
    shape.saved += std::uint64_t{keys} * (last - first - 1);
    return 0;
  };
  for (std::uint32_t first = 0, last = 0; first < common.size(); first = last) {
    for (last = first + 1; last < common.size() && common[last] != 0;) ++last;
    walk_shared(common, first, last, 0, 0, shared, [](std::uint32_t, std::uint32_t, int) {});
  }
  return shape;
}

}  // namespace kvant
