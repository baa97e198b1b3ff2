// PagePool with a limit on its slabs, pages of the prefix index and moves, against a plain model of every page.
#include <doctest/doctest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "host_random.hpp"
#include "page_pool.hpp"

namespace kvant {
namespace {

struct PoolModel {
  struct Page {
    std::uint32_t references = 0;
    bool indexed = false;
  };
  PoolModel(std::uint32_t total, std::uint32_t pages_per_slab)
      : pages(total), per_slab(pages_per_slab), slabs((total + per_slab - 1) / per_slab), limit(slabs) {}

  std::vector<Page> pages;
  std::uint32_t per_slab, slabs, limit;

  std::uint32_t slab_of(std::uint32_t page) const { return page / per_slab; }
  std::uint32_t free_in(std::uint32_t slab) const {
    std::uint32_t count = 0;
    for (std::uint32_t page = 0; page < pages.size(); ++page)
      count += slab_of(page) == slab && pages[page].references == 0 ? 1 : 0;
    return slab < limit ? count : 0;
  }
  // Any page for which `which` holds; the number of pages if there is none.
  template <typename F>
  std::uint32_t any(test::Random& random, F which) const {
    std::vector<std::uint32_t> found;
    for (std::uint32_t page = 0; page < pages.size(); ++page)
      if (which(page)) found.push_back(page);
    return found.empty() ? static_cast<std::uint32_t>(pages.size()) : found[random.below(static_cast<std::uint32_t>(found.size()))];
  }
};

void check(const PagePool& pool, const PoolModel& model) {
  std::uint32_t used = 0, free = 0, index_only = 0, usable = 0;
  for (std::uint32_t page = 0; page < model.pages.size(); ++page) {
    const PoolModel::Page& facts = model.pages[page];
    REQUIRE(pool.references(page) == facts.references);
    used += facts.references != 0 ? 1 : 0;
    usable += model.slab_of(page) < model.limit ? 1 : 0;
    free += model.slab_of(page) < model.limit && facts.references == 0 ? 1 : 0;
    index_only += facts.references == 1 && facts.indexed ? 1 : 0;
  }
  REQUIRE(pool.used_pages() == used);
  REQUIRE(pool.free_pages() == free);
  REQUIRE(pool.index_only_pages() == index_only);
  REQUIRE(pool.usable_pages() == usable);
}

TEST_CASE("host page_pool: limits, indexed pages and moves agree with a model") {
  for (std::uint32_t seed = 0; seed < 30; ++seed) {
    CAPTURE(seed);
    test::Random random(seed);
    const std::uint32_t total = random.between(1, 40);
    PoolModel model(total, random.between(1, 7));
    PagePool pool(total, model.per_slab);
    const bool scattered = seed % 3 == 0;
    if (scattered) pool.shuffle(seed, true);
    const auto held = [&](std::uint32_t page) { return model.pages[page].references != 0; };
    for (int step = 0; step < 1500; ++step) {
      const std::uint32_t action = random.below(8);
      if (action < 3) {
        const std::uint32_t neighbour = random.chance(60) ? random.below(total) : total;
        const std::int32_t got = pool.take(neighbour == total ? kNoPage : static_cast<std::int32_t>(neighbour));
        std::uint32_t lowest = 0;
        while (lowest < model.limit && model.free_in(lowest) == 0) ++lowest;
        if (lowest == model.limit) {
          REQUIRE(got == kNoPage);
          continue;
        }
        REQUIRE(got >= 0);
        const auto page = static_cast<std::uint32_t>(got);
        REQUIRE(model.slab_of(page) < model.limit);
        REQUIRE(model.pages[page].references == 0);
        const bool near = neighbour != total && model.free_in(model.slab_of(neighbour)) != 0;
        if (!scattered) REQUIRE(model.slab_of(page) == (near ? model.slab_of(neighbour) : lowest));
        model.pages[page].references = 1;
      } else if (action == 3) {
        const std::uint32_t page = model.any(random, held);
        if (page == total) continue;
        if (!model.pages[page].indexed && random.chance(60)) {
          pool.add_indexed(page);
          model.pages[page].indexed = true;
        } else {
          pool.add_reference(page);
        }
        ++model.pages[page].references;
      } else if (action < 6) {
        const std::uint32_t page = model.any(random, held);
        if (page == total) continue;
        PoolModel::Page& facts = model.pages[page];
        if (facts.indexed && (facts.references == 1 || random.chance(20))) {
          pool.release_indexed(page);
          facts.indexed = false;
        } else {
          pool.release(page);
        }
        --facts.references;
      } else if (action == 6 && random.chance(30)) {
        const std::uint32_t limit = random.below(model.slabs + 2);
        pool.set_slab_limit(limit);
        model.limit = std::min(limit, model.slabs);
      } else if (action == 7) {
        const std::uint32_t from = model.any(random, held);
        const std::uint32_t to = model.any(random, [&](std::uint32_t page) { return !held(page); });
        if (from == total || to == total) continue;
        pool.move(from, to);
        model.pages[to] = std::exchange(model.pages[from], {});
      }
      check(pool, model);
    }
  }
}

}  // namespace
}  // namespace kvant
