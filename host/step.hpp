// Step: the caller's handle of an open step, and StepState: all that the cache keeps while the step is open. The state
// belongs to the cache and is reused from step to step, so that planning in steady state allocates next to nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.hpp"
#include "cache.hpp"
#include "planner.hpp"
#include "sequence.hpp"

namespace kvant {

class CacheImpl;

// Ends with commit or abort; destroying it otherwise aborts.
class Step {
 public:
  explicit Step(CacheImpl& cache) : cache_(&cache) {}
  ~Step();
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

 private:
  friend class CacheImpl;
  CacheImpl* cache_;  // null once the step has ended or the cache is gone
};

// A page that the step took: a fresh one at the end of a table, or the private copy of a shared open page.
struct TakenPage {
  std::uint32_t entry = 0, group = 0, index = 0;
  std::int32_t page = kNoPage;
  std::int32_t replaced = kNoPage;  // the shared page that it replaces, or kNoPage
};

struct StepSequence {
  Sequence* sequence = nullptr;
  std::uint64_t old_length = 0;
  std::uint32_t append = 0;
  std::size_t token_begin = 0, token_count = 0;  // in StepState::tokens; 0: not told
};

// One layer group's tables and where they lie in META.
struct GroupTables {
  GroupBatch batch;
  std::uint32_t slots_offset = 0, seqs_offset = 0, pages_offset = 0;
};

// The same with copies: slots are of WidePages, and pages name a copy instead of the page where there is one.
struct WideTables : GroupTables {
  bool any = false;  // copy
};

// The items of one layer group under one request, shared by all layers that ask the same.
struct AttendVariant {
  std::uint32_t group = 0;
  bool wide = false;  // of WideTables
  AttendRequest request;
  AttendPlan plan;
  std::uint32_t items_offset = 0, merges_offset = 0, shared_seqs_offset = 0;  // words in META
};

struct StepState {
  std::vector<StepSequence> sequences;
  std::vector<TakenPage> taken;
  std::vector<std::int32_t> tokens;  // ids of the fresh tokens that were told
  std::vector<GroupTables> groups;
  std::vector<WideTables> wide;        // per layer group, if the cache protects tokens
  std::vector<TakenPage> wide_taken, stale_copies;  // the former by entry, then by group
  std::vector<std::uint32_t> wide_begin;            // of wide_taken, per entry and group, and its end
  std::vector<bool> imported;          // per layer: its fresh tokens have no copies, whatever the tables say
  std::vector<AttendVariant> variants;  // the first variant_count are in use
  std::size_t variant_count = 0;
  std::vector<bool> appended;  // per layer
  std::uint32_t fresh_tokens = 0, queries = 0;
  bool masked = false;  // some sequence has a custom mask
  std::vector<std::uint32_t> mask_offsets;  // per entry, words in META
  std::uint64_t sampled_token = UINT64_MAX;  // fresh token whose quantization error is measured; UINT64_MAX: none

  void clear();
};

}  // namespace kvant
