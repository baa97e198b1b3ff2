// AttendPlanner: cascade attention. A run of neighbouring sequences that begin with the same pages is a tree: a branch's keys
// are visited once, by the queries of all sequences below it, as if they were queries of one sequence; what follows is each
// branch's own. A query's partial rows, from the root to its leaf, are merged like any other splits, by their log-sum-exps
// (the method: FlashInfer's cascade attention, arXiv:2501.01005). The kernels know nothing of it.
#include <algorithm>
#include <numeric>
#include <span>

#include "planner.hpp"
#include "shared_keys.hpp"

namespace kvant {

using params::AttendSeq;

// Times the rows that a run's partial results fill, which it may take.
constexpr std::uint64_t kMostUnused = 4;

// Sequences [first, last), each of which shares keys with the one before it.
void AttendPlanner::add_run(std::uint32_t first, std::uint32_t last) {
  if (first == last) return;
  if (last - first == 1) return add_sequence(first);
  const AttendSeq &begin = batch_->seqs[first], &end = batch_->seqs[last - 1];
  const std::uint32_t queries = end.q_begin + end.q_len - begin.q_begin;
  const std::size_t known = plan_->shared_seqs.size();
  run_items_.clear();
  run_splits_.assign(queries, 0);
  run_query_ = begin.q_begin;
  walk_shared(
      std::span<const std::uint32_t>(common_tokens_), first, last, 0, 0u,
      [this](std::uint32_t from, std::uint32_t to, std::uint32_t keys_begin, std::uint32_t keys_end, std::uint32_t splits) {
        return add_shared(from, to, keys_begin, keys_end, splits);
      },
      [this](std::uint32_t seq, std::uint32_t keys_begin, std::uint32_t splits) { add_leaf(seq, keys_begin, splits); });
  // Splits lie one row of queries after the other, so that each query has as many rows as the one with most splits.
  const auto longest = std::max_element(run_splits_.begin(), run_splits_.end());
  const std::uint64_t rows = std::uint64_t{*longest} * queries * request_.q_heads;
  const std::uint64_t used = std::accumulate(run_splits_.begin(), run_splits_.end(), std::uint64_t{0}) * request_.q_heads;
  const bool lopsided = rows > kMostUnused * used;
  if (lopsided || rows > request_.partial_rows) {
    plan_->shared_seqs.resize(known);
    std::uint32_t left = first + (last - first) / 2, right = left;
    if (lopsided) {  // the long sequence stands alone
      const std::uint32_t query = begin.q_begin + static_cast<std::uint32_t>(longest - run_splits_.begin());
      for (left = first; batch_->seqs[left].q_begin + batch_->seqs[left].q_len <= query;) ++left;
      right = left + 1;
    }
    add_run(first, left);
    if (left != right) add_sequence(left);
    return add_run(right, last);
  }
  if (pass_rows_ + rows > request_.partial_rows) close_pass();
  const auto base = static_cast<std::uint32_t>(pass_rows_);
  const std::uint32_t stride = queries * request_.q_heads;
  for (RunItem& run : run_items_) {
    run.item.partial_row = base + run.split * stride + run.query * request_.q_heads;
    add_item(run.item, run.slab, run.shared);
  }
  for (std::uint32_t i = 0; i < queries; ++i)
    plan_->merges.push_back({base + i * request_.q_heads, stride, run_splits_[i], begin.q_begin + i});
  pass_rows_ += rows;
}

// The keys of one sequence from `begin` on.
void AttendPlanner::add_leaf(std::uint32_t seq, std::uint32_t begin, std::uint32_t splits) {
  const AttendSeq& facts = batch_->seqs[seq];
  const std::uint32_t offset = facts.q_begin - run_query_, most = request_.own.queries_per_item;
  for (std::uint32_t q = 0; q < facts.q_len; q += most) {
    const std::uint32_t count = std::min(most, facts.q_len - q);
    find_ranges(facts, q, count);
    for (Range& range : ranges_) range.begin = std::max(range.begin, begin);
    find_pieces(seq, request_.own);
    if (splits == 0 && pieces_.empty()) pieces_.push_back({0, 0, kNoSlab});  // a query without a key merges one empty row
    std::uint32_t split = splits;
    for (const Piece& piece : pieces_)
      run_items_.push_back({{seq, q, count, piece.begin, piece.end, 0, 0, 0}, piece.slab, split++, offset + q, false});
    std::fill_n(run_splits_.begin() + offset + q, count, split);
  }
}

// Keys [begin, end) of the first sequence, and of all of them, for which their queries have `splits` items so far. Returns how many they have then.
std::uint32_t AttendPlanner::add_shared(std::uint32_t first, std::uint32_t last, std::uint32_t begin, std::uint32_t end, std::uint32_t splits) {
  const AttendSeq &from = batch_->seqs[first], &to = batch_->seqs[last - 1];
  const std::uint32_t queries = to.q_begin + to.q_len - from.q_begin;
  const std::uint32_t offset = from.q_begin - run_query_;
  ranges_.assign(1, {begin, end});
  find_pieces(first, request_.shared);
  if (pieces_.empty()) return splits;  // holes alone
  AttendSeq seq = from;
  seq.kv_len = seq.mask_kv_begin = end;
  seq.mask_row_words = seq.mask_offset = 0;
  seq.q_len = queries;
  seq.q_pos_begin = static_cast<std::int32_t>(end) - 1;  // all keys are seen
  const auto index = static_cast<std::uint32_t>(plan_->shared_seqs.size());
  plan_->shared_seqs.push_back(seq);
  const std::uint32_t most = request_.shared.queries_per_item;
  for (const Piece& piece : pieces_) {
    for (std::uint32_t q = 0; q < queries; q += most)
      run_items_.push_back({{index, q, std::min(most, queries - q), piece.begin, piece.end, 0, 0, 0}, piece.slab, splits, offset + q, true});
    ++splits;
  }
  return splits;
}

}  // namespace kvant
