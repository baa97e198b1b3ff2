// The attention planner: cuts a layer group's batch into work items, one table for all layers that agree on heads and
// config. Keys that neighbouring sequences share are visited once for all of them (cascade attention), as a tree: prefixes of
// prefixes too. Pure: tables in, tables out. Cuts of the keys lie at fixed multiples of kv_split, at holes and between slabs,
// and splits are merged in the order of positions, so a result does not depend on where in a slab its pages lie.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.hpp"
#include "page_table.hpp"

namespace kvant {

// Items' limits. What they are: AttendConfig.
struct ItemCut {
  std::uint32_t queries_per_item = 0;
  std::uint32_t kv_per_item = 0;  // hard limit, multiple of page_tokens; 0 = none
  std::uint32_t kv_split = 0;     // aim, multiple of page_tokens; 0 = none
  bool operator==(const ItemCut&) const = default;
};

struct AttendRequest {
  std::uint32_t q_heads = 1;
  bool causal = true;
  // Only sequences with a query count within these bounds: a step may hold prompts and single tokens side by side, and
  // each kind gets its own kernel.
  std::uint32_t least_queries = 1, most_queries = 0xFFFFFFFFu;
  ItemCut own{1, 0, 0};
  // Of keys that neighbours share: of batch.common_pages, those that all their queries see. queries_per_item 0: none are looked for.
  // The caller asks only where positions between query and key do not matter (no ALiBi); a window rules them out by itself.
  ItemCut shared;
  bool merge_all = false;         // no item with keys is final: what attend_merge does to its rows is wanted for all
  // Partial rows that a pass may use. A single query whose splits need more still gets them in a pass of its own.
  std::uint64_t partial_rows = 1u << 20;
  bool operator==(const AttendRequest&) const = default;
};

inline constexpr std::uint32_t kNoSlab = 0xFFFFFFFFu;

// Items [item_begin, item_begin + item_count) read keys of `slab` only (kNoSlab: they read none). `shared`: they are cut by
// AttendRequest::shared, and their `seq` is of AttendPlan::shared_seqs.
struct SlabItems {
  std::uint32_t slab = kNoSlab, item_begin = 0, item_count = 0;
  bool shared = false;
};

// Dispatches of one pass may run at once; then its merges. The next pass reuses the partial rows.
struct AttendPass {
  std::uint32_t slab_begin = 0, slab_count = 0;    // in AttendPlan::slabs
  std::uint32_t merge_begin = 0, merge_count = 0;  // in AttendPlan::merges
  std::uint64_t partial_rows = 0;
};

struct AttendPlan {
  std::vector<params::AttendItem> items;
  std::vector<params::MergeItem> merges;
  std::vector<SlabItems> slabs;
  std::vector<AttendPass> passes;
  std::vector<params::AttendSeq> shared_seqs;  // keys that several sequences share, with all their queries
  // Where it is beyond 32 bits the row numbers of items and merges have wrapped: too many bytes for any device, and refused.
  std::uint64_t max_partial_rows = 0;

  void clear();
};

class AttendPlanner {
 public:
  // Overwrites `plan`, whose vectors keep their memory.
  void plan(const GroupBatch& batch, const GroupGeometry& group, std::uint32_t page_tokens,
            const AttendRequest& request, AttendPlan& plan);

 private:
  struct Range {
    std::uint32_t begin, end;
  };
  struct Piece {
    std::uint32_t begin, end, slab;
  };

  // An item of a run of sequences, before its rows in PARTIAL are known.
  struct RunItem {
    params::AttendItem item;
    std::uint32_t slab, split, query;  // query: the first one, counted from the run's first
    bool shared;
  };

  void find_ranges(const params::AttendSeq& seq, std::uint32_t q_begin, std::uint32_t q_count);
  void find_pieces(std::uint32_t seq, const ItemCut& cut);
  void add_item(params::AttendItem item, std::uint32_t slab, bool shared);
  void add_tile(std::uint32_t seq, std::uint32_t q_begin, std::uint32_t q_count);
  void add_sequence(std::uint32_t seq);
  void add_run(std::uint32_t first, std::uint32_t last);
  void add_leaf(std::uint32_t seq, std::uint32_t begin, std::uint32_t splits);
  std::uint32_t add_shared(std::uint32_t first, std::uint32_t last, std::uint32_t begin, std::uint32_t end, std::uint32_t splits);
  void close_pass();

  const GroupBatch* batch_ = nullptr;
  const GroupGeometry* group_ = nullptr;
  std::uint32_t page_tokens_ = 16;
  AttendRequest request_;
  AttendPlan* plan_ = nullptr;
  // Scratch, reused between calls.
  std::vector<Range> ranges_;
  std::vector<Piece> pieces_;
  std::vector<params::AttendItem> pass_items_;
  std::vector<std::uint64_t> pass_keys_;  // slab of each pass item, then whether it is of shared keys
  std::vector<std::uint64_t> key_order_;
  std::vector<std::uint32_t> common_tokens_;  // per sequence: those that it shares with the one before it
  std::vector<RunItem> run_items_;
  std::vector<std::uint32_t> run_splits_;  // per query of a run
  std::uint32_t run_query_ = 0;  // the run's first, among the batch's
  std::uint64_t pass_rows_ = 0;
  std::uint32_t pass_merge_begin_ = 0;
};

}  // namespace kvant
