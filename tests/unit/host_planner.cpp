// The attention planner: on random batches every visible (query, key) pair is covered exactly once, within every limit.
#include "planner.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "host_random.hpp"

namespace kvant {
namespace {

using params::AttendItem;
using params::AttendSeq;

constexpr std::uint32_t kPage = 16;

struct Case {
  GroupGeometry group;
  GroupBatch batch;
  std::vector<std::vector<std::uint32_t>> masks;  // per sequence; empty: none
  AttendRequest request;
};

GroupGeometry make_group(std::uint32_t total_pages, std::uint32_t pages_per_slab) {
  GroupGeometry group;
  group.kv_heads = 2;
  group.head_dim_k = group.head_dim_v = 64;
  group.total_pages = total_pages;
  group.pages_per_slab = pages_per_slab;
  group.slab_count = (total_pages + pages_per_slab - 1) / pages_per_slab;
  return group;
}

void add_sequence(Case& c, std::uint32_t kv_len, std::uint32_t q_len, std::int32_t q_position,
                  std::vector<std::int32_t> pages) {
  AttendSeq seq{};
  seq.kv_len = kv_len;
  seq.q_len = q_len;
  seq.q_pos_begin = q_position;
  seq.page_begin = static_cast<std::uint32_t>(c.batch.pages.size());
  seq.q_begin = c.batch.seqs.empty() ? 0 : c.batch.seqs.back().q_begin + c.batch.seqs.back().q_len;
  seq.mask_kv_begin = kv_len;
  c.batch.seqs.push_back(seq);
  c.batch.page_counts.push_back(static_cast<std::uint32_t>(pages.size()));
  c.batch.pages.insert(c.batch.pages.end(), pages.begin(), pages.end());
  c.masks.emplace_back();
}

bool visible(const Case& c, std::size_t s, std::uint32_t query, std::uint32_t kv) {
  const AttendSeq& seq = c.batch.seqs[s];
  if (c.batch.pages[seq.page_begin + kv / kPage] == kNoPage) return false;
  const std::int64_t position = std::int64_t{seq.q_pos_begin} + query;
  if (kv >= seq.mask_kv_begin) {
    const std::uint32_t bit = kv - seq.mask_kv_begin;
    if (((c.masks[s][query * seq.mask_row_words + bit / 32] >> (bit % 32)) & 1u) == 0) return false;
  } else if (c.request.causal && kv > position) {
    return false;
  }
  return c.group.window == 0 || kv < c.group.window_sinks || std::int64_t{kv} > position - c.group.window;
}

Case random_case(std::uint32_t seed) {
  test::Random random(seed);
  Case c;
  c.group = make_group(400, random.chance(30) ? 400 : random.between(1, 40));
  if (random.chance(40)) {
    c.group.window = random.between(1, 200);
    if (random.chance(50)) c.group.window_sinks = random.between(1, 40);
  }
  c.request.q_heads = 2 * random.between(1, 4);
  c.request.causal = random.chance(70);
  c.request.queries_per_item = random.between(1, 20);
  if (random.chance(70)) c.request.kv_per_item = kPage * random.between(1, 20);
  if (random.chance(70)) c.request.kv_split = kPage * random.between(1, 20);
  if (random.chance(30)) c.request.partial_rows = random.between(1, 200);
  if (random.chance(30)) c.request.most_queries = 4;
  const std::uint32_t sequences = random.between(0, 6);
  for (std::uint32_t s = 0; s < sequences; ++s) {
    const std::uint32_t kv_len = random.between(0, 700), q_len = random.between(1, random.chance(50) ? 3 : 60);
    std::vector<std::int32_t> pages;
    std::uint32_t next = random.below(300);
    for (std::uint32_t p = 0; p < (kv_len + kPage - 1) / kPage; ++p) {
      if (random.chance(20)) next = random.below(399);
      pages.push_back(random.chance(10) ? kNoPage : static_cast<std::int32_t>(next++ % 400));
    }
    std::int32_t position = static_cast<std::int32_t>(kv_len) - static_cast<std::int32_t>(q_len);
    if (random.chance(30)) position = static_cast<std::int32_t>(random.below(900)) - 100;
    add_sequence(c, kv_len, q_len, position, pages);
    if (random.chance(25)) {
      AttendSeq& seq = c.batch.seqs.back();
      seq.mask_kv_begin = random.below(kv_len + 1);
      seq.mask_row_words = (kv_len - seq.mask_kv_begin + 31) / 32;
      for (std::uint32_t w = 0; w < q_len * seq.mask_row_words; ++w)
        c.masks.back().push_back(random.below(0x10000u) | random.below(0x10000u) << 16);
    }
  }
  return c;
}

void check_limits(const Case& c, const AttendPlan& plan) {
  const std::uint32_t most = c.request.kv_per_item;
  for (const AttendItem& item : plan.items) {
    REQUIRE(item.q_count >= 1);
    REQUIRE(item.q_count <= c.request.queries_per_item);
    REQUIRE(item.q_begin + item.q_count <= c.batch.seqs[item.seq].q_len);
    REQUIRE(item.kv_begin % kPage == 0);
    REQUIRE(item.kv_begin <= item.kv_end);
    REQUIRE(item.kv_end <= c.batch.seqs[item.seq].kv_len);
    if (most != 0) REQUIRE(item.kv_end - item.kv_begin <= most);
    if (c.request.kv_split != 0) REQUIRE(item.kv_end - item.kv_begin <= c.request.kv_split);
  }
  std::uint32_t items = 0, slabs = 0, merges = 0;
  for (const AttendPass& pass : plan.passes) {
    REQUIRE(pass.slab_begin == slabs);
    REQUIRE(pass.merge_begin == merges);
    slabs += pass.slab_count;
    merges += pass.merge_count;
    std::set<std::uint32_t> seen;
    for (std::uint32_t i = pass.slab_begin; i < slabs; ++i) {
      const SlabItems& group = plan.slabs[i];
      REQUIRE(group.item_begin == items);
      REQUIRE(group.item_count > 0);
      REQUIRE(seen.insert(group.slab).second);  // a slab takes one dispatch
      items += group.item_count;
      for (std::uint32_t k = group.item_begin; k < items; ++k) {
        const AttendItem& item = plan.items[k];
        const AttendSeq& seq = c.batch.seqs[item.seq];
        REQUIRE((item.kv_begin == item.kv_end) == (group.slab == kNoSlab));
        for (std::uint32_t kv = item.kv_begin; kv < item.kv_end; kv += kPage) {
          const std::int32_t page = c.batch.pages[seq.page_begin + kv / kPage];
          REQUIRE(page != kNoPage);
          REQUIRE(static_cast<std::uint32_t>(page) / c.group.pages_per_slab == group.slab);
        }
      }
    }
  }
  REQUIRE(items == plan.items.size());
  REQUIRE(slabs == plan.slabs.size());
  REQUIRE(merges == plan.merges.size());
}

// How often each (sequence, query, key) is covered, and that partial rows belong to exactly one writer and one merge a
// pass.
void check_cover(const Case& c, const AttendPlan& plan) {
  std::map<std::tuple<std::size_t, std::uint32_t, std::uint32_t>, int> covered;
  std::map<std::uint32_t, int> finals;  // query row -> times written
  for (const AttendPass& pass : plan.passes) {
    std::map<std::uint32_t, std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>>
        rows;  // row -> (seq, query, kv_begin)
    std::uint32_t begin = plan.slabs[pass.slab_begin].item_begin, end = begin;
    for (std::uint32_t i = 0; i < pass.slab_count; ++i) end += plan.slabs[pass.slab_begin + i].item_count;
    for (std::uint32_t k = begin; k < end; ++k) {
      const AttendItem& item = plan.items[k];
      for (std::uint32_t q = item.q_begin; q < item.q_begin + item.q_count; ++q) {
        for (std::uint32_t kv = item.kv_begin; kv < item.kv_end; ++kv)
          if (visible(c, item.seq, q, kv)) ++covered[{item.seq, q, kv}];
        if (item.partial_row == KVANT_ITEM_FINAL) {
          ++finals[c.batch.seqs[item.seq].q_begin + q];
          continue;
        }
        for (std::uint32_t h = 0; h < c.request.q_heads; ++h) {
          const std::uint32_t row = item.partial_row + (q - item.q_begin) * c.request.q_heads + h;
          REQUIRE(row < pass.partial_rows);
          REQUIRE(rows.emplace(row, std::tuple(item.seq, q, item.kv_begin)).second);
        }
      }
    }
    REQUIRE(pass.partial_rows <= plan.max_partial_rows);
    std::size_t merged = 0;
    for (std::uint32_t m = pass.merge_begin; m < pass.merge_begin + pass.merge_count; ++m) {
      const params::MergeItem& merge = plan.merges[m];
      ++finals[merge.q_row];
      REQUIRE(merge.split_count >= 2);
      std::int64_t last = -1;
      for (std::uint32_t s = 0; s < merge.split_count; ++s)
        for (std::uint32_t h = 0; h < c.request.q_heads; ++h, ++merged) {
          const auto row = rows.find(merge.partial_row + s * merge.split_stride + h);
          REQUIRE(row != rows.end());
          const auto& [seq, query, kv_begin] = row->second;
          REQUIRE(c.batch.seqs[seq].q_begin + query == merge.q_row);
          if (h == 0) REQUIRE(std::int64_t{kv_begin} > last);  // splits are merged in order of position
          if (h == 0) last = kv_begin;
        }
    }
    REQUIRE(merged == rows.size());
  }
  for (std::size_t s = 0; s < c.batch.seqs.size(); ++s) {
    const AttendSeq& seq = c.batch.seqs[s];
    const bool wanted = seq.q_len >= c.request.least_queries && seq.q_len <= c.request.most_queries;
    for (std::uint32_t q = 0; q < seq.q_len; ++q) {
      REQUIRE(finals[seq.q_begin + q] == (wanted ? 1 : 0));
      if (!wanted) continue;
      for (std::uint32_t kv = 0; kv < seq.kv_len; ++kv) {
        const auto found = covered.find({s, q, kv});
        const int times = found == covered.end() ? 0 : found->second;
        REQUIRE(times == (visible(c, s, q, kv) ? 1 : 0));
      }
    }
  }
}

AttendPlan plan_of(const Case& c) {
  AttendPlanner planner;
  AttendPlan plan;
  planner.plan(c.batch, c.group, kPage, c.request, plan);
  return plan;
}

TEST_CASE("host planner: random batches are covered once, within slabs and limits") {
  AttendPlanner planner;  // one planner and one plan for all: reuse must not leak
  AttendPlan plan;
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const Case c = random_case(seed);
    planner.plan(c.batch, c.group, kPage, c.request, plan);
    check_limits(c, plan);
    check_cover(c, plan);
  }
}

TEST_CASE("host planner: keys that no query of an item can see are not visited") {
  Case c;
  c.group = make_group(64, 64);
  c.group.window = 32;
  c.group.window_sinks = 4;
  std::vector<std::int32_t> pages(64);
  for (std::int32_t p = 0; p < 64; ++p) pages[static_cast<std::size_t>(p)] = p;
  add_sequence(c, 1024, 1, 900, pages);
  const AttendPlan plan = plan_of(c);
  REQUIRE(plan.items.size() == 2);
  CHECK(plan.items[0].kv_begin == 0);
  CHECK(plan.items[0].kv_end == 4);
  CHECK(plan.items[1].kv_begin == 864);  // 900 - 32 + 1 = 869, down to its page
  CHECK(plan.items[1].kv_end == 901);
  CHECK(plan.merges.size() == 1);
}

TEST_CASE("host planner: a query without a key still writes its row of zeros") {
  Case c;
  c.group = make_group(4, 4);
  add_sequence(c, 0, 1, -1, {});
  add_sequence(c, 20, 2, -5, {0, 1});              // before every key
  add_sequence(c, 32, 1, 31, {kNoPage, kNoPage});  // nothing mapped
  c.request.queries_per_item = 2;
  const AttendPlan plan = plan_of(c);
  REQUIRE(plan.items.size() == 3);
  for (const AttendItem& item : plan.items) {
    CHECK(item.kv_begin == item.kv_end);
    CHECK(item.partial_row == KVANT_ITEM_FINAL);
  }
  REQUIRE(plan.slabs.size() == 1);
  CHECK(plan.slabs[0].slab == kNoSlab);
  CHECK(plan.merges.empty());
}

TEST_CASE("host planner: cuts do not depend on where in a slab the pages lie") {
  for (std::uint32_t seed = 1; seed < 20; ++seed) {
    test::Random random(seed);
    Case plain, shuffled;
    plain.group = shuffled.group = make_group(128, 128);
    std::vector<std::int32_t> pages(60), mixed;
    for (std::int32_t p = 0; p < 60; ++p) pages[static_cast<std::size_t>(p)] = p;
    mixed = pages;
    for (std::uint32_t i = 60; i > 1; --i) std::swap(mixed[i - 1], mixed[random.below(i)]);
    plain.request.kv_split = shuffled.request.kv_split = 96;
    plain.request.queries_per_item = shuffled.request.queries_per_item = 4;
    add_sequence(plain, 950, 9, 941, pages);
    add_sequence(shuffled, 950, 9, 941, mixed);
    const AttendPlan a = plan_of(plain), b = plan_of(shuffled);
    REQUIRE(a.items.size() == b.items.size());
    for (std::size_t i = 0; i < a.items.size(); ++i) {
      CHECK(a.items[i].kv_begin == b.items[i].kv_begin);
      CHECK(a.items[i].kv_end == b.items[i].kv_end);
      CHECK(a.items[i].partial_row == b.items[i].partial_row);
    }
  }
}

TEST_CASE("host planner: partial rows beyond the budget go through passes") {
  Case c;
  c.group = make_group(128, 128);
  std::vector<std::int32_t> pages(100);
  for (std::int32_t p = 0; p < 100; ++p) pages[static_cast<std::size_t>(p)] = p;
  for (int s = 0; s < 5; ++s) add_sequence(c, 1600, 6, 1594, pages);
  c.request.q_heads = 4;
  c.request.queries_per_item = 6;
  c.request.kv_split = 400;  // 4 splits: 96 rows a sequence
  c.request.partial_rows = 200;
  const AttendPlan plan = plan_of(c);
  CHECK(plan.passes.size() == 3);
  CHECK(plan.max_partial_rows == 192);
  c.request.partial_rows = 10;  // one query needs 16: each gets its own pass
  const AttendPlan tight = plan_of(c);
  CHECK(tight.passes.size() == 30);
  CHECK(tight.max_partial_rows == 16);
  check_limits(c, tight);
  check_cover(c, tight);
}

TEST_CASE("host batch: append spans hold the tokens of each slab") {
  GroupBatch batch;
  batch.slots = {5, -1, 16 * 4, 16 * 4 + 1, 6, -3, 16 * 9};
  find_append_spans(batch, make_group(12, 4), kPage);
  REQUIRE(batch.appends.size() == 3);
  CHECK(batch.appends[0].slab == 0);
  CHECK(batch.appends[0].first == 0);
  CHECK(batch.appends[0].count == 5);
  CHECK(batch.appends[1].slab == 1);
  CHECK(batch.appends[1].first == 2);
  CHECK(batch.appends[1].count == 2);
  CHECK(batch.appends[2].slab == 2);
  CHECK(batch.appends[2].first == 6);
}

}  // namespace
}  // namespace kvant
