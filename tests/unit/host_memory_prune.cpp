// The memory planner with leave to prune: the last resort, wherever the narrowest formats do not reach, and no more than it takes.
#include <doctest/doctest.h>

#include <algorithm>

#include "memory_planner.hpp"

namespace kvant {
namespace {

constexpr std::uint64_t kTokens = 1024;

// One sequence in use fills the pool.
MemoryState full_state(FormatId format, std::uint64_t mass_page_bytes) {
  MemoryState state;
  MemoryLayer layer;
  layer.head_dim = {64, 64};
  layer.kv_heads = 2;
  layer.format = {format, format};
  state.layers = {layer, layer};
  MemoryGroup group;
  group.pages_per_slab = 1;
  group.total_pages = group.held_pages = group.allocated_slabs = kTokens / 16;
  group.mass_page_bytes = mass_page_bytes;
  group.references.assign(group.total_pages, 1);
  group.published.assign(group.total_pages, false);
  state.groups = {group};
  MemorySequence sequence;
  sequence.id = SequenceId{1};
  sequence.length = kTokens;
  sequence.pages.resize(1);
  for (std::uint32_t page = 0; page < group.total_pages; ++page) sequence.pages[0].push_back(static_cast<std::int32_t>(page));
  state.sequences = {sequence};
  state.mass = mass_page_bytes != 0;
  return state;
}

// Tokens of the sequence that are left.
std::uint64_t kept_by(const MemoryPlan& plan) {
  for (const MemoryAction& action : plan.actions)
    if (action.kind == MemoryActionKind::prune) return action.kept;
  return kTokens;
}

TEST_CASE("host memory: with leave to prune every limit is met, from any format, and only what formats do not reach prunes") {
  const MemoryOptions prune{.prune = true};
  const MemoryOptions keep;
  for (const FormatId format : {FormatId::f32, FormatId::f16, FormatId::q8_0, FormatId::q4_0}) {
    const MemoryState state = full_state(format, 16 * 8 * 2 * 2);
    const std::uint64_t now = allocated_bytes(state);
    std::uint64_t last = kTokens;
    bool pruned_above_quarter = false;
    for (std::uint32_t percent = 100; percent >= 15; --percent) {
      CAPTURE(percent);
      CAPTURE(static_cast<int>(format));
      const std::uint64_t limit = now * percent / 100;
      const auto plan = plan_memory(state, limit, prune);
      REQUIRE_MESSAGE(plan.ok(), plan.status().message());
      CHECK(plan.value().bytes_after <= limit);
      const std::uint64_t kept = kept_by(plan.value());
      const auto whole = plan_memory(state, limit, keep);
      CHECK((kept == kTokens) == whole.ok());
      CHECK(kept <= last);
      // All of the room that is left is used, but for a page and a thousandth of the tokens.
      if (kept < kTokens) CHECK(limit - plan.value().bytes_after <= now * 3 / 64);
      pruned_above_quarter = pruned_above_quarter || (kept < kTokens && percent >= 25);
      last = kept;
    }
    CHECK(pruned_above_quarter == (format != FormatId::f32));  // whose q4_0 takes less
  }
}

TEST_CASE("host memory: the sinks and the newest tokens are the least that pruning leaves") {
  const MemoryState state = full_state(FormatId::q4_0, 16 * 8 * 2 * 2);
  const std::uint64_t page = allocated_bytes(state) / (kTokens / 16);
  const MemoryOptions options{.prune = true, .sinks = 4, .recent = 60};
  const auto least = plan_memory(state, page * 5, options);  // four, and one to go on
  REQUIRE_MESSAGE(least.ok(), least.status().message());
  CHECK(kept_by(least.value()) == 64);
  const Status refused = plan_memory(state, page * 5 - 1, options).status();
  CHECK(refused.code() == StatusCode::resource_exhausted);
  CHECK(refused.message().find("in the narrowest formats that are allowed, pruned as far as may be") != std::string::npos);
}

TEST_CASE("host memory: pages that sequences share need free ones to be pruned into, one sequence after the other") {
  MemoryState state = full_state(FormatId::q4_0, 16 * 8 * 2 * 2);
  MemorySequence fork = state.sequences[0];
  fork.id = SequenceId{2};
  state.sequences.push_back(fork);
  MemoryGroup& group = state.groups[0];
  group.references.assign(group.total_pages, 2);
  const MemoryOptions options{.prune = true, .sinks = 0, .recent = 64};  // four pages each
  const std::uint64_t limit = allocated_bytes(state) / 4;
  const Status refused = plan_memory(state, limit, options).status();
  CHECK(refused.code() == StatusCode::resource_exhausted);
  CHECK(refused.message().find("no free ones to prune them into") != std::string::npos);
  // With three free pages the first one that is pruned has no room; with four it has, and then the other one's pages are its own.
  group.total_pages += 4;
  group.references.resize(group.total_pages, 0);
  group.published.resize(group.total_pages, false);
  group.free_pages = 3;
  CHECK_FALSE(plan_memory(state, limit, options).ok());
  group.free_pages = 4;
  const auto plan = plan_memory(state, limit, options);
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  CHECK(plan.value().actions[0].kind == MemoryActionKind::prune);
  CHECK(plan.value().actions[1].kind == MemoryActionKind::prune);
  // What only the prefix cache holds is as good as free, and what it holds besides is let go.
  group.free_pages = 0;
  group.index_pages = 4;
  CHECK(plan_memory(state, limit, options).ok());
  group.index_pages = 0;
  state.sequences.pop_back();
  group.published.assign(group.total_pages, true);
  CHECK(plan_memory(state, limit, options).ok());
  // What is to stay whole is not pruned.
  state.sequences[0].whole = true;
  CHECK_FALSE(plan_memory(state, limit, options).ok());
}

TEST_CASE("host memory: what counts no attention mass is not pruned") {
  const MemoryState state = full_state(FormatId::f16, 0);
  const auto plan = plan_memory(state, allocated_bytes(state) / 10, {.prune = true});
  CHECK(plan.status().code() == StatusCode::resource_exhausted);
  CHECK(plan.status().message().find("in the narrowest formats that are allowed") != std::string::npos);
}

}  // namespace
}  // namespace kvant
