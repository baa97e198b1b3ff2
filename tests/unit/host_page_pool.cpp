// PagePool and PageTable against plain models.
#include "page_pool.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <vector>

#include "host_random.hpp"
#include "page_table.hpp"

namespace kvant {
namespace {

TEST_CASE("host page_pool: pages of other grades are counted apart, and leave room for others of the first") {
  PagePool pool(7, 3, 3);  // ids 0 to 8, 9 to 17 and 18 to 26, the last two of each for no page
  CHECK(pool.total_pages() == 7);
  CHECK(pool.slabs() == 3);
  CHECK(pool.free_ids(1, 7) == std::vector<std::uint32_t>{9, 10, 11, 12, 13, 14, 15});
  CHECK(pool.free_ids(2, 2) == std::vector<std::uint32_t>{18, 19});
  for (int i = 0; i < 5; ++i) REQUIRE(pool.take(kNoPage) == i);
  pool.add_indexed(1);
  pool.add_indexed(2);
  pool.release(2);
  pool.move(1, 10);
  pool.move(2, 18);
  pool.move(3, 9);
  CHECK(pool.used_pages() == 5);
  for (const auto& [grade, used, only, indexed] : {std::array{0U, 2U, 0U, 0U}, {1U, 2U, 0U, 1U}, {2U, 1U, 1U, 1U}}) {
    CAPTURE(grade);
    CHECK(pool.used_pages_of(grade) == used);
    CHECK(pool.index_only_pages_of(grade) == only);
    CHECK(pool.indexed_pages_of(grade) == indexed);
  }
  CHECK(pool.index_only_pages() == 1);
  CHECK(pool.references(10) == 2);
  CHECK(pool.free_ids(1, 2) == std::vector<std::uint32_t>{11, 12});
  // Five ids of the first grade are free, but only two pages.
  CHECK(pool.free_pages() == 2);
  CHECK(pool.take(9) == 2);  // a neighbour of another grade says nothing
  CHECK(pool.take(kNoPage) != kNoPage);
  CHECK(pool.take(kNoPage) == kNoPage);
  pool.release(9);
  CHECK(pool.free_pages() == 1);
  pool.set_slab_limit(1);
  CHECK(pool.usable_pages() == 3 + 2);
  CHECK(pool.free_pages() == 0);
  pool.release_indexed(18);
  CHECK(pool.used_pages_of(2) == 0);
  CHECK(pool.index_only_pages() == 0);
  pool.release_indexed(10);
  CHECK(pool.references(10) == 1);
  CHECK(pool.indexed_pages_of(1) == 0);
}

TEST_CASE("host page_pool: random operations agree with a model") {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    test::Random random(seed);
    const std::uint32_t total = random.between(1, 70), per_slab = random.between(1, 20);
    PagePool pool(total, per_slab);
    if (seed % 3 == 1) pool.shuffle(seed, false);
    if (seed % 3 == 2) pool.shuffle(seed, true);
    std::map<std::uint32_t, std::uint32_t> model;  // page -> references
    std::uint32_t high_water = 0;
    for (int step = 0; step < 2000; ++step) {
      const std::uint32_t action = random.below(5);
      if (action < 2) {
        const std::int32_t neighbour = random.chance(50) ? static_cast<std::int32_t>(random.below(total)) : kNoPage;
        const std::int32_t page = pool.take(neighbour);
        if (model.size() == total) {
          CHECK(page == kNoPage);
        } else {
          REQUIRE(page >= 0);
          REQUIRE(static_cast<std::uint32_t>(page) < total);
          REQUIRE(model.count(static_cast<std::uint32_t>(page)) == 0);
          model[static_cast<std::uint32_t>(page)] = 1;
        }
      } else if (!model.empty()) {
        auto entry = std::next(model.begin(), random.below(static_cast<std::uint32_t>(model.size())));
        if (action == 2) {
          pool.add_reference(entry->first);
          ++entry->second;
        } else {
          pool.release(entry->first);
          if (--entry->second == 0) model.erase(entry);
        }
      }
      high_water = std::max(high_water, static_cast<std::uint32_t>(model.size()));
      REQUIRE(pool.used_pages() == model.size());
      REQUIRE(pool.free_pages() == total - model.size());
    }
    for (std::uint32_t page = 0; page < total; ++page)
      CHECK(pool.references(page) == (model.count(page) != 0 ? model[page] : 0));
    CHECK(pool.high_water() == high_water);
  }
}

TEST_CASE("host page_pool: a sequence stays in its slab as long as that has room") {
  PagePool pool(12, 4);
  const std::int32_t first = pool.take(kNoPage);
  CHECK(first == 0);
  const std::int32_t far = pool.take(9);  // a neighbour in slab 2
  CHECK(far / 4 == 2);
  std::int32_t page = far;
  for (int i = 0; i < 3; ++i) {
    page = pool.take(page);
    CHECK(page / 4 == 2);
  }
  CHECK(pool.take(page) / 4 == 0);  // slab 2 is full: the lowest slab with room
  pool.release(8);
  CHECK(pool.take(9) == 8);
}

TEST_CASE("host page_pool: releasing in reverse restores the order in which pages are given") {
  PagePool pool(20, 7);
  pool.shuffle(5, false);
  std::vector<std::int32_t> first, second;
  for (int i = 0; i < 15; ++i) first.push_back(pool.take(first.empty() ? kNoPage : first.back()));
  for (auto page = first.rbegin(); page != first.rend(); ++page) pool.release(static_cast<std::uint32_t>(*page));
  for (int i = 0; i < 15; ++i) second.push_back(pool.take(second.empty() ? kNoPage : second.back()));
  CHECK(first == second);
}

TEST_CASE("host page_pool: shuffling across slabs scatters neighbours") {
  PagePool pool(64, 8);
  pool.shuffle(11, true);
  std::set<std::int32_t> slabs;
  std::int32_t page = kNoPage;
  for (int i = 0; i < 8; ++i) slabs.insert((page = pool.take(page)) / 8);
  CHECK(slabs.size() > 2);
}

TEST_CASE("host page_table: sharing, holes and shrinking keep the books") {
  PagePool pool(8, 4);
  PageTable parent, child;
  for (int i = 0; i < 4; ++i) parent.push(pool.take(parent.last()));
  parent.punch(1, 2, pool);
  CHECK(parent.at(1) == kNoPage);
  CHECK(pool.used_pages() == 3);
  child.share(parent, 3, pool);
  CHECK(pool.used_pages() == 3);
  CHECK(pool.references(static_cast<std::uint32_t>(parent.at(0))) == 2);
  CHECK(child.first_hole(0, 3) == 1);
  CHECK(child.first_hole(2, 3) == 3);
  parent.shrink(0, pool);
  CHECK(pool.used_pages() == 2);
  child.shrink(1, pool);
  CHECK(pool.used_pages() == 1);
  CHECK(child.size() == 1);
  child.shrink(0, pool);
  CHECK(pool.used_pages() == 0);
}

TEST_CASE("host page_table: runs end at holes and slab borders") {
  const std::vector<std::int32_t> pages{0, 1, kNoPage, 2, 3, 4, 7, kNoPage};
  GroupGeometry group;
  group.total_pages = 8;
  group.pages_per_slab = 4;
  group.slab_count = 2;
  auto expect = [&](std::uint32_t from, std::uint32_t begin, std::uint32_t count, std::uint32_t slab) {
    const PageRun run = next_run(pages, from, 8, group);
    CHECK(run.begin == begin);
    CHECK(run.count == count);
    if (count != 0) CHECK(run.slab == slab);
  };
  expect(0, 0, 2, 0);
  expect(2, 3, 2, 0);
  expect(5, 5, 2, 1);
  expect(7, 8, 0, 0);
  CHECK(next_run(pages, 3, 4, group).count == 1);  // the end bounds it
}

}  // namespace
}  // namespace kvant
