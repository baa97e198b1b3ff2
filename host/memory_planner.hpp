// The memory planner: from what a cache holds and a limit in bytes to the actions that meet it. Pure: numbers in, actions out; the
// cache carries them out. Sequences in use are never touched but for their formats, unless the caller lets them be pruned.
//
// With r = limit / bytes allocated: r >= 1/2 gives back room first (unused slabs, then pages that only the prefix cache holds) and
// narrows formats only if that is not enough; 1/4 <= r < 1/2 goes to 8 bits first, then gives back room; below 1/4 it narrows
// as far as it takes, then gives back room. Where sequences do not fit in the narrowest formats they are pruned by attention mass,
// if that may be: below 1/4 mostly, above where the pool was narrow already.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "cache_spec.hpp"

namespace kvant {

struct MemoryLayer {
  std::uint32_t group = 0, kv_heads = 1;
  std::array<std::uint32_t, 2> head_dim{};   // by Side
  std::array<FormatId, 2> format{};
  // How much an error of this side hurts, relative to the others: measured by whoever knows the model. Negative: never narrow it.
  std::array<double, 2> weight{2.0, 1.0};    // K is harder than V
};

struct MemoryGroup {
  std::uint32_t pages_per_slab = 1, total_pages = 0;
  std::uint32_t held_pages = 0;              // by sequences
  std::uint32_t index_pages = 0;             // by the prefix cache alone
  std::uint32_t allocated_slabs = 0;
  std::uint32_t published_pages = 0;         // of held_pages, those that the prefix cache holds as well
  std::uint32_t window = 0, window_sinks = 0;  // tokens; 0: all
  std::uint64_t mass_page_bytes = 0;         // attention mass of a page
  // Of a cache that counts attention mass:
  std::uint32_t free_pages = 0;
  std::vector<std::uint32_t> references = {};  // per page
  std::vector<bool> published = {};            // per page: the prefix cache holds it
};

struct MemorySequence {
  SequenceId id{};
  std::uint64_t length = 0;
  std::vector<std::vector<std::int32_t>> pages = {};  // per group, those that are there
  bool whole = false;                        // is not pruned
  std::vector<std::uint32_t> cold_pages = {};  // per group, besides: cooled ones, which need others before their tokens can move
};

struct MemoryState {
  std::uint32_t page_tokens = 16, region_alignment = 16;
  std::vector<MemoryLayer> layers;
  std::vector<MemoryGroup> groups;
  std::vector<MemorySequence> sequences;
  bool mass = false;                         // attention mass is counted: sequences can be pruned
  bool tiers = false;                        // pages that leave go there
  std::uint64_t other_bytes = 0;             // of slabs of cooled pages and of means, which the planner leaves alone
};

struct MemoryOptions {
  std::vector<FormatId> ladder = {FormatId::q8_0, FormatId::q4_0};  // from wide to narrow: what a side may become
  bool prune = false;                        // what no format meets: sequences may lose tokens, but for these
  std::uint64_t sinks = PruneSpec{}.sinks, recent = PruneSpec{}.recent;
};

enum class MemoryActionKind : std::uint32_t { convert, prune, evict, resize };

struct MemoryAction {
  MemoryActionKind kind{};
  std::uint32_t layer = 0;       // convert
  Side side = Side::k;           // convert
  FormatId from{}, to{};         // convert
  SequenceId sequence{};         // prune
  std::uint64_t tokens = 0, kept = 0;  // prune: before and after
  std::uint32_t group = 0;       // evict, resize
  std::uint32_t pages = 0;       // evict: pages of the prefix cache that leave (or go to the tiers)
  std::uint32_t slabs = 0;       // resize: slabs that stay
  std::uint64_t bytes_before = 0, bytes_after = 0;  // of all slabs and other_bytes
};

struct MemoryPlan {
  std::uint64_t limit_bytes = 0, bytes_before = 0, bytes_after = 0;
  std::vector<MemoryAction> actions;
  std::vector<std::uint32_t> slab_limit;  // per group: what may be allocated from now on
};

std::uint64_t allocated_bytes(const MemoryState& state);
// Errors: resource_exhausted, naming the least bytes that can be met.
Result<MemoryPlan> plan_memory(const MemoryState& state, std::uint64_t limit_bytes, const MemoryOptions& options);
std::string memory_plan_text(const MemoryPlan& plan, const MemoryState& state);  // a line an action, with bytes before and after

}  // namespace kvant
