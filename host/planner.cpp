#include "planner.hpp"

#include <algorithm>
#include <cassert>

#include "shared_keys.hpp"

namespace kvant {

using params::AttendItem;
using params::AttendSeq;
using params::MergeItem;

namespace {

// Cuts lie at its multiples; 0: anywhere.
std::uint32_t step_of(const ItemCut& cut) {
  if (cut.kv_per_item == 0 || cut.kv_split == 0) return std::max(cut.kv_per_item, cut.kv_split);
  return std::min(cut.kv_per_item, cut.kv_split);
}

bool asked(const AttendSeq& seq, const AttendRequest& request) {
  return seq.q_len >= request.least_queries && seq.q_len <= request.most_queries;
}

}  // namespace

void AttendPlan::clear() {
  items.clear();
  merges.clear();
  slabs.clear();
  passes.clear();
  shared_seqs.clear();
  max_partial_rows = 0;
}

// Keys that at least one of the queries can see, as ascending, disjoint ranges that begin on a page. Keys that a custom
// mask decides count as visible.
void AttendPlanner::find_ranges(const AttendSeq& seq, std::uint32_t q_begin, std::uint32_t q_count) {
  ranges_.clear();
  const std::int64_t first_position = std::int64_t{seq.q_pos_begin} + q_begin;
  const std::int64_t last_position = first_position + q_count - 1;
  const std::int64_t kv_len = seq.kv_len;
  const bool masked = seq.mask_row_words != 0;
  const std::int64_t ruled_end = masked ? std::min<std::int64_t>(kv_len, seq.mask_kv_begin) : kv_len;

  auto add = [&](std::int64_t begin, std::int64_t end) {
    begin = std::max<std::int64_t>(begin, 0);
    if (begin >= end) return;
    Range range{static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)};
    range.begin -= range.begin % page_tokens_;
    if (!ranges_.empty() && range.begin <= ranges_.back().end) {
      ranges_.back().end = std::max(ranges_.back().end, range.end);
    } else {
      ranges_.push_back(range);
    }
  };

  const std::int64_t end = request_.causal ? std::min(ruled_end, last_position + 1) : ruled_end;
  std::int64_t begin = 0;
  if (group_->window != 0) {
    add(0, std::min<std::int64_t>(end, group_->window_sinks));
    begin = first_position - std::int64_t{group_->window} + 1;
  }
  add(begin, end);
  if (masked) add(ruled_end, kv_len);
}

// The ranges cut at holes, between slabs and at multiples of kv_split.
void AttendPlanner::find_pieces(std::uint32_t seq, const ItemCut& cut) {
  pieces_.clear();
  const AttendSeq& facts = batch_->seqs[seq];
  const std::span<const std::int32_t> pages =
      std::span(batch_->pages).subspan(facts.page_begin, batch_->page_counts[seq]);
  const std::uint32_t step = step_of(cut);
  for (const Range& range : ranges_) {
    const std::uint32_t last_page = (range.end + page_tokens_ - 1) / page_tokens_;
    std::uint32_t page = range.begin / page_tokens_;
    while (true) {
      const PageRun run = next_run(pages, page, last_page, *group_);
      if (run.count == 0) break;
      page = run.begin + run.count;
      const std::uint32_t end =
          static_cast<std::uint32_t>(std::min<std::uint64_t>(std::uint64_t{page} * page_tokens_, range.end));
      for (std::uint32_t begin = run.begin * page_tokens_; begin < end;) {
        std::uint32_t stop = end;
        if (step != 0)
          stop = static_cast<std::uint32_t>(std::min<std::uint64_t>(end, (std::uint64_t{begin} / step + 1) * step));
        pieces_.push_back({begin, stop, run.slab});
        begin = stop;
      }
    }
  }
}

void AttendPlanner::add_item(AttendItem item, std::uint32_t slab, bool shared) {
  pass_items_.push_back(item);
  pass_keys_.push_back(std::uint64_t{slab} << 1 | (shared ? 1 : 0));
}

void AttendPlanner::add_tile(std::uint32_t seq, std::uint32_t q_begin, std::uint32_t q_count) {
  find_ranges(batch_->seqs[seq], q_begin, q_count);
  find_pieces(seq, request_.own);
  const std::uint64_t splits = pieces_.size();
  if (splits == 0 || (splits == 1 && !request_.merge_all)) {
    const Piece piece = splits == 1 ? pieces_[0] : Piece{0, 0, kNoSlab};
    add_item({seq, q_begin, q_count, piece.begin, piece.end, KVANT_ITEM_FINAL, 0, 0}, piece.slab, false);
    return;
  }
  const std::uint64_t rows = splits * q_count * request_.q_heads;
  if (rows > request_.partial_rows && q_count > 1) {
    // Too many partial rows at once: fewer queries at a time.
    add_tile(seq, q_begin, q_count / 2);
    add_tile(seq, q_begin + q_count / 2, q_count - q_count / 2);
    return;
  }
  if (pass_rows_ + rows > request_.partial_rows) close_pass();
  const auto base = static_cast<std::uint32_t>(pass_rows_);
  const std::uint32_t stride = q_count * request_.q_heads;
  for (std::uint32_t s = 0; s < splits; ++s) {
    const Piece& piece = pieces_[s];
    add_item({seq, q_begin, q_count, piece.begin, piece.end, base + s * stride, 0, 0}, piece.slab, false);
  }
  for (std::uint32_t i = 0; i < q_count; ++i)
    plan_->merges.push_back({base + i * request_.q_heads, stride, static_cast<std::uint32_t>(splits),
                             batch_->seqs[seq].q_begin + q_begin + i});
  pass_rows_ += rows;
}

void AttendPlanner::add_sequence(std::uint32_t seq) {
  const std::uint32_t queries = batch_->seqs[seq].q_len, most = request_.own.queries_per_item;
  for (std::uint32_t q = 0; q < queries; q += most) add_tile(seq, q, std::min(most, queries - q));
}

// Orders the pass's items by slab, so that each slab takes one dispatch, or two where some of its keys are shared.
void AttendPlanner::close_pass() {
  if (pass_items_.empty()) return;
  key_order_ = pass_keys_;
  std::sort(key_order_.begin(), key_order_.end());
  key_order_.erase(std::unique(key_order_.begin(), key_order_.end()), key_order_.end());

  AttendPass pass;
  pass.slab_begin = static_cast<std::uint32_t>(plan_->slabs.size());
  pass.merge_begin = pass_merge_begin_;
  pass.merge_count = static_cast<std::uint32_t>(plan_->merges.size()) - pass_merge_begin_;
  pass.partial_rows = pass_rows_;
  for (const std::uint64_t key : key_order_) {
    SlabItems group{static_cast<std::uint32_t>(key >> 1), static_cast<std::uint32_t>(plan_->items.size()), 0, (key & 1) != 0};
    for (std::size_t i = 0; i < pass_items_.size(); ++i)
      if (pass_keys_[i] == key) plan_->items.push_back(pass_items_[i]);
    group.item_count = static_cast<std::uint32_t>(plan_->items.size()) - group.item_begin;
    plan_->slabs.push_back(group);
  }
  pass.slab_count = static_cast<std::uint32_t>(plan_->slabs.size()) - pass.slab_begin;
  plan_->passes.push_back(pass);
  plan_->max_partial_rows = std::max(plan_->max_partial_rows, pass.partial_rows);

  pass_items_.clear();
  pass_keys_.clear();
  pass_rows_ = 0;
  pass_merge_begin_ = static_cast<std::uint32_t>(plan_->merges.size());
}

void AttendPlanner::plan(const GroupBatch& batch, const GroupGeometry& group, std::uint32_t page_tokens,
                         const AttendRequest& request, AttendPlan& plan) {
  for ([[maybe_unused]] const ItemCut& cut : {request.own, request.shared})
    assert(cut.kv_split % page_tokens == 0 && cut.kv_per_item % page_tokens == 0);
  assert(request.own.queries_per_item > 0);
  batch_ = &batch;
  group_ = &group;
  page_tokens_ = page_tokens;
  request_ = request;
  plan_ = &plan;
  plan.clear();
  pass_items_.clear();
  pass_keys_.clear();
  pass_rows_ = 0;
  pass_merge_begin_ = 0;
  if (request.shared.queries_per_item != 0 && group.window == 0)
    find_common_tokens(batch, page_tokens, {request.causal, request.least_queries, request.most_queries}, common_tokens_);
  else
    common_tokens_.assign(batch.seqs.size(), 0);
  for (std::uint32_t s = 0, last = 0; s < batch.seqs.size(); s = last) {
    for (last = s + 1; last < batch.seqs.size() && common_tokens_[last] != 0;) ++last;
    if (asked(batch.seqs[s], request)) add_run(s, last);
  }
  close_pass();
}

}  // namespace kvant
