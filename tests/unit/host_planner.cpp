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
  c.request.own.queries_per_item = random.between(1, 20);
  if (random.chance(70)) c.request.own.kv_per_item = kPage * random.between(1, 20);
  if (random.chance(70)) c.request.own.kv_split = kPage * random.between(1, 20);
  if (random.chance(30)) c.request.partial_rows = random.between(1, 200);
  if (random.chance(30)) c.request.most_queries = 4;
  if (random.chance(50)) {
    c.request.shared.queries_per_item = random.between(1, 30);
    if (random.chance(70)) c.request.shared.kv_per_item = kPage * random.between(1, 20);
    if (random.chance(70)) c.request.shared.kv_split = kPage * random.between(1, 20);
  }
  const bool alike = random.chance(50);  // sequences begin with pages of the one before them
  const std::uint32_t sequences = random.between(0, alike ? 12 : 6);
  for (std::uint32_t s = 0; s < sequences; ++s) {
    const std::uint32_t kv_len = random.between(0, 700), q_len = random.between(1, random.chance(50) ? 3 : 60);
    std::vector<std::int32_t> pages;
    std::uint32_t next = random.below(300);
    for (std::uint32_t p = 0; p < (kv_len + kPage - 1) / kPage; ++p) {
      if (random.chance(20)) next = random.below(399);
      pages.push_back(random.chance(10) ? kNoPage : static_cast<std::int32_t>(next++ % 400));
    }
    if (alike && s > 0) {
      const auto before = std::span(c.batch.pages).subspan(c.batch.seqs.back().page_begin, c.batch.page_counts.back());
      const std::size_t most = std::min(before.size(), pages.size());
      std::copy_n(before.begin(), random.chance(50) ? most : random.below(static_cast<std::uint32_t>(most) + 1), pages.begin());
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
  find_common_pages(c.batch);
  return c;
}

const AttendSeq& sequence_of(const Case& c, const AttendPlan& plan, const SlabItems& group, const AttendItem& item) {
  return group.shared ? plan.shared_seqs[item.seq] : c.batch.seqs[item.seq];
}

// Of a query row of the batch: its sequence and its number there.
std::pair<std::size_t, std::uint32_t> query_at(const Case& c, std::uint32_t row) {
  std::size_t s = 0;
  while (row >= c.batch.seqs[s].q_begin + c.batch.seqs[s].q_len) ++s;
  return {s, row - c.batch.seqs[s].q_begin};
}

void check_limits(const Case& c, const AttendPlan& plan) {
  for (const SlabItems& group : plan.slabs) {
    const ItemCut& cut = group.shared ? c.request.shared : c.request.own;
    for (std::uint32_t k = group.item_begin; k < group.item_begin + group.item_count; ++k) {
      const AttendItem& item = plan.items[k];
      const AttendSeq& seq = sequence_of(c, plan, group, item);
      REQUIRE(item.q_count >= 1);
      REQUIRE(item.q_count <= cut.queries_per_item);
      REQUIRE(item.q_begin + item.q_count <= seq.q_len);
      REQUIRE(item.kv_begin % kPage == 0);
      REQUIRE(item.kv_begin <= item.kv_end);
      REQUIRE(item.kv_end <= seq.kv_len);
      if (cut.kv_per_item != 0) REQUIRE(item.kv_end - item.kv_begin <= cut.kv_per_item);
      if (cut.kv_split != 0) REQUIRE(item.kv_end - item.kv_begin <= cut.kv_split);
    }
  }
  std::uint32_t items = 0, slabs = 0, merges = 0;
  for (const AttendPass& pass : plan.passes) {
    REQUIRE(pass.slab_begin == slabs);
    REQUIRE(pass.merge_begin == merges);
    slabs += pass.slab_count;
    merges += pass.merge_count;
    std::set<std::pair<std::uint32_t, bool>> seen;
    for (std::uint32_t i = pass.slab_begin; i < slabs; ++i) {
      const SlabItems& group = plan.slabs[i];
      REQUIRE(group.item_begin == items);
      REQUIRE(group.item_count > 0);
      REQUIRE(seen.insert({group.slab, group.shared}).second);  // a slab takes one dispatch of a kind
      items += group.item_count;
      for (std::uint32_t k = group.item_begin; k < items; ++k) {
        const AttendItem& item = plan.items[k];
        const AttendSeq& seq = sequence_of(c, plan, group, item);
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
    std::map<std::uint32_t, std::pair<std::uint32_t, std::uint32_t>> rows;  // row -> (query row, kv_begin)
    std::set<std::uint32_t> shares;                                         // query rows with shared keys
    for (const SlabItems& group : std::span(plan.slabs).subspan(pass.slab_begin, pass.slab_count)) {
      for (const AttendItem& item : std::span(plan.items).subspan(group.item_begin, group.item_count)) {
        const AttendSeq& holder = sequence_of(c, plan, group, item);
        for (std::uint32_t q = item.q_begin; q < item.q_begin + item.q_count; ++q) {
          const auto [s, query] = query_at(c, holder.q_begin + q);
          if (group.shared) shares.insert(holder.q_begin + q);
          for (std::uint32_t kv = item.kv_begin; kv < item.kv_end; ++kv) {
            // The kernel sees what the item's sequence says: of shared keys that must be the query's own page, and visible.
            REQUIRE(c.batch.pages[holder.page_begin + kv / kPage] == c.batch.pages[c.batch.seqs[s].page_begin + kv / kPage]);
            if (group.shared) REQUIRE((visible(c, s, query, kv) && holder.q_pos_begin >= static_cast<std::int32_t>(kv) && kv < holder.mask_kv_begin));
            if (visible(c, s, query, kv)) ++covered[{s, query, kv}];
          }
          if (item.partial_row == KVANT_ITEM_FINAL) {
            ++finals[holder.q_begin + q];
            continue;
          }
          for (std::uint32_t h = 0; h < c.request.q_heads; ++h) {
            const std::uint32_t row = item.partial_row + (q - item.q_begin) * c.request.q_heads + h;
            REQUIRE(row < pass.partial_rows);
            REQUIRE(rows.emplace(row, std::pair(holder.q_begin + q, item.kv_begin)).second);
          }
        }
      }
    }
    REQUIRE(pass.partial_rows <= plan.max_partial_rows);
    std::size_t merged = 0;
    for (std::uint32_t m = pass.merge_begin; m < pass.merge_begin + pass.merge_count; ++m) {
      const params::MergeItem& merge = plan.merges[m];
      ++finals[merge.q_row];
      REQUIRE(merge.split_count >= (c.request.shared.queries_per_item != 0 ? 1 : 2));
      std::int64_t last = -1;
      for (std::uint32_t s = 0; s < merge.split_count; ++s)
        for (std::uint32_t h = 0; h < c.request.q_heads; ++h, ++merged) {
          const auto row = rows.find(merge.partial_row + s * merge.split_stride + h);
          REQUIRE(row != rows.end());
          const auto& [query_row, kv_begin] = row->second;
          REQUIRE(query_row == merge.q_row);
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
  c.request.own.queries_per_item = 2;
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
    plain.request.own.kv_split = shuffled.request.own.kv_split = 96;
    plain.request.own.queries_per_item = shuffled.request.own.queries_per_item = 4;
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
  c.request.own.queries_per_item = 6;
  c.request.own.kv_split = 400;  // 4 splits: 96 rows a sequence
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

TEST_CASE("host planner: keys that neighbours share are visited once, prefixes of prefixes too") {
  Case c;
  c.group = make_group(200, 200);
  c.request.own = {1, 64, 64};
  c.request.shared = {8, 128, 128};
  c.request.q_heads = 2;
  const auto pages = [](std::vector<std::pair<int, int>> ranges) {
    std::vector<std::int32_t> result;
    for (const auto& [begin, end] : ranges)
      for (int page = begin; page < end; ++page) result.push_back(page);
    return result;
  };
  // 32 pages (512 tokens) for all four, 8 more (128) for the two in the middle; 17 tokens and more of their own.
  add_sequence(c, 529, 1, 528, pages({{0, 32}, {100, 102}}));
  add_sequence(c, 657, 1, 656, pages({{0, 40}, {110, 112}}));
  add_sequence(c, 667, 2, 665, pages({{0, 40}, {120, 122}}));
  add_sequence(c, 550, 1, 549, pages({{0, 33}, {130, 132}}));  // one page more is not worth items of its own
  find_common_pages(c.batch);
  CHECK(c.batch.common_pages == std::vector<std::uint32_t>{0, 32, 40, 33});
  const AttendPlan plan = plan_of(c);
  check_limits(c, plan);
  check_cover(c, plan);
  REQUIRE(plan.shared_seqs.size() == 2);
  CHECK(plan.shared_seqs[0].kv_len == 512);
  CHECK(plan.shared_seqs[0].q_len == 5);
  CHECK(plan.shared_seqs[1].kv_len == 640);
  CHECK(plan.shared_seqs[1].q_begin == 1);
  CHECK(plan.shared_seqs[1].q_len == 3);
  std::uint64_t read = 0;
  for (const AttendItem& item : plan.items) read += item.kv_end - item.kv_begin;
  CHECK(read == 512 + 128 + 17 + 17 + 2 * 27 - 1 + 38);  // the last sequence but one has two queries, each with its own item
  REQUIRE(plan.merges.size() == 5);
  CHECK(plan.merges[0].split_count == 5);  // 512 / 128, then its own
  CHECK(plan.merges[1].split_count == 6);

  // Positions between query and key count under a window; keys that a mask decides, or that a query does not see, are its own.
  c.group.window = 600;
  CHECK(plan_of(c).shared_seqs.empty());
  c.group.window = 0;
  c.batch.seqs[1].q_pos_begin = 300;
  const AttendPlan early = plan_of(c);
  REQUIRE(early.shared_seqs.size() == 2);
  CHECK(early.shared_seqs[0].kv_len == 288);
  CHECK(early.shared_seqs[1].kv_len == 528);
  CHECK(early.shared_seqs[1].q_begin == 2);
  check_cover(c, early);
  c.request.causal = false;
  CHECK(plan_of(c).shared_seqs[0].kv_len == 512);
}

TEST_CASE("host planner: a run of sequences whose partial rows are too many is halved") {
  Case c;
  c.group = make_group(100, 100);
  c.request.own = {1, 64, 64};
  c.request.shared = {4, 64, 64};
  c.request.q_heads = 2;
  std::vector<std::int32_t> pages(64);
  for (std::int32_t p = 0; p < 64; ++p) pages[static_cast<std::size_t>(p)] = p;
  for (std::int32_t s = 0; s < 6; ++s) {
    pages.back() = 80 + s;
    add_sequence(c, 1024, 1, 1023, pages);
  }
  find_common_pages(c.batch);
  for (const std::uint64_t rows : {1000u, 204u, 203u, 102u, 101u, 68u, 67u, 33u, 10u}) {
    CAPTURE(rows);
    c.request.partial_rows = rows;
    const AttendPlan plan = plan_of(c);
    check_limits(c, plan);
    check_cover(c, plan);
    CHECK(plan.max_partial_rows <= std::max<std::uint64_t>(rows, 32));  // 16 splits of one query
    CHECK(plan.shared_seqs.size() == (rows >= 204 ? 1 : rows >= 68 ? 2 : 0));
  }
}

TEST_CASE("host planner: one long sequence does not make rows for all of its run") {
  Case c;
  c.group = make_group(3000, 3000);
  c.request.own = {1, 64, 64};
  c.request.shared = {4, 128, 128};
  c.request.q_heads = 2;
  c.request.partial_rows = 1u << 20;
  std::vector<std::int32_t> pages(16);
  for (std::int32_t p = 0; p < 16; ++p) pages[static_cast<std::size_t>(p)] = p;
  for (std::int32_t s = 0; s < 8; ++s) {
    std::vector<std::int32_t> own = pages;
    for (std::int32_t p = 0; p < (s == 5 ? 2000 : 10); ++p) own.push_back(100 * (s + 1) + p);
    add_sequence(c, static_cast<std::uint32_t>(own.size()) * kPage, 1, static_cast<std::int32_t>(own.size()) * 16 - 1, own);
  }
  find_common_pages(c.batch);
  const AttendPlan plan = plan_of(c);
  check_limits(c, plan);
  check_cover(c, plan);
  CHECK(plan.shared_seqs.size() == 2);  // sequences 0 to 4, then 6 and 7
  CHECK(plan.max_partial_rows < 1200);  // 504 splits of the long one's query and 2 + 3 of the others', for 2 heads
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
