// Cooled pages: V of the pages that got least attention, and of no others, is what the narrower format makes of it; everything else that a cache
// does goes on with them.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "cool_choice.hpp"
#include "host_cooling_model.hpp"
#include "memory_planner.hpp"

namespace kvant {
namespace {

using test::cool_spec;
using test::CoolingModel;
using test::entry;

TEST_CASE("host cooling: the choice is the least cost for what it saves") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    test::Random random(seed);
    const std::uint32_t pages = random.between(1, 7);
    CoolGroup group;
    group.used[0] = pages;
    for (std::uint32_t grade = 0; grade < kMostGrades; ++grade)
      for (std::uint32_t n = 0; n <= pages; ++n) group.slab_bytes[grade].push_back(std::uint64_t{n} * (30 - 10 * grade));
    std::vector<CoolStep> steps;
    std::vector<double> mass;
    for (std::uint32_t page = 0; page < pages; ++page) {
      mass.push_back(random.below(4) == 0 ? 0.0 : static_cast<double>(random.below(1000)));
      steps.push_back({0, page, 0, 1, mass.back() * 1, 10});
      steps.push_back({0, page, 1, 2, mass.back() * 4, 10});
    }
    const std::uint64_t target = random.between(pages * 10, pages * 30);
    const auto chosen = choose_cooled({group}, steps, 0, target);
    REQUIRE(chosen.ok());
    std::vector<std::uint32_t> to(pages, 0);
    for (const CoolStep& step : chosen.value()) {
      CHECK(step.from == 0);
      to[step.page] = step.to;
    }
    const auto cost_of = [&](const std::vector<std::uint32_t>& grades) {
      double cost = 0;
      for (std::uint32_t page = 0; page < pages; ++page) cost += mass[page] * (grades[page] == 0 ? 0 : grades[page] == 1 ? 1 : 5);
      return cost;
    };
    const auto bytes_of = [&](const std::vector<std::uint32_t>& grades) { return pages * 30 - 10 * std::accumulate(grades.begin(), grades.end(), 0U); };
    CHECK(bytes_of(to) <= target);
    // Steps are all of one size: no other choice that saves as much costs less.
    std::vector<std::uint32_t> other(pages, 0);
    double least = cost_of(to);
    for (std::uint32_t number = 0; number < static_cast<std::uint32_t>(std::pow(3, pages)); ++number) {
      for (std::uint32_t page = 0, rest = number; page < pages; ++page, rest /= 3) other[page] = rest % 3;
      if (bytes_of(other) <= target) least = std::min(least, cost_of(other));
    }
    CHECK(cost_of(to) <= least);
  }
}

TEST_CASE("host cooling: a target that cannot be met names the least that can") {
  CoolGroup group;
  group.pages_per_slab = 2;
  group.used = {3, 0, 0};
  group.slab_bytes = {std::vector<std::uint64_t>{0, 100, 150}, {0, 60, 90}, {0, 40, 60}};
  // 150 with none cooled; one page cooled takes a slab and frees one: 100 + 60; two: 100 + 60, three: 90.
  const std::vector<CoolStep> steps = {{0, 0, 0, 1, 1.0, 20}, {0, 1, 0, 1, 1.0, 20}, {0, 2, 0, 1, 1.0, 20}};
  CHECK(choose_cooled({group}, steps, 0, 150).value().empty());
  CHECK(choose_cooled({group}, steps, 0, 149).value().size() == 3);
  const auto least = choose_cooled({group}, steps, 0, 89);
  CHECK(least.status().code() == StatusCode::resource_exhausted);
  CHECK(least.status().message().find("target_bytes (89) cannot be met") != std::string::npos);
  CHECK(least.status().message().find("the cache takes 90") != std::string::npos);
}

TEST_CASE("host cooling: what saves more may cost more") {
  CoolGroup group;
  group.used = {2, 0, 0};
  for (auto& bytes : group.slab_bytes) bytes = {0, 50, 100};
  group.slab_bytes[1] = {0, 20, 40};
  const std::vector<CoolStep> steps = {{0, 0, 0, 1, 2.0, 10}, {0, 1, 0, 1, 3.0, 30}};
  const auto chosen = choose_cooled({group}, steps, 0, 99);
  REQUIRE(chosen->size() == 1);
  CHECK(chosen->front().page == 1);
}

TEST_CASE("host cooling: pages of least mass cool, sinks and the newest do not") {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    CAPTURE(seed);
    CacheSpec spec = cool_spec(512);
    spec.layers = {{2, 64, 64, FormatId::q4_0, FormatId::f16, 0, 0}};
    CoolingModel model(spec, 2, seed);
    model.formats = {FormatId::t3};
    model.options.mass = true;
    const SequenceId id = model.create();
    model.append({entry(id, 300, 300)});
    std::vector<float> mass(300);
    REQUIRE(model.cache->attention_mass(id, {}, {}, 0, mass).ok());
    const auto report = model.cool(model.bytes() * 9 / 10, 20, 50);
    REQUIRE_MESSAGE(report.ok(), report.status().message());
    CHECK(report->pages != 0);
    CHECK(report->bytes_after <= model.bytes());
    CHECK(model.bytes() <= report->bytes_before * 9 / 10);
    CHECK(report->pages == model.cooled_pages(0));
    model.check_reads();
    const auto pages = model.pages_of(id, 0);
    double most_cooled = 0, least_kept = 1e30;
    for (std::size_t page = 0; page < pages.size(); ++page) {
      const bool cooled = model.grade_of(0, pages[page]) != 0;
      const auto begin = mass.begin() + static_cast<std::ptrdiff_t>(page * 16);
      const double of_page = std::accumulate(begin, begin + std::min<std::ptrdiff_t>(16, mass.end() - begin), 0.0);
      if (page * 16 < 20 || (page + 1) * 16 > 250) {
        CHECK_FALSE(cooled);
      } else if (cooled) {
        most_cooled = std::max(most_cooled, of_page);
      } else {
        least_kept = std::min(least_kept, of_page);
      }
    }
    CHECK(most_cooled <= least_kept * (1 + 1e-6));
    CHECK(most_cooled > 0);
    model.append({entry(id, 1, 1)});
  }
}

TEST_CASE("host cooling: every page cools that holds no token that stays") {
  CacheSpec spec = cool_spec(512);
  spec.layers = {{2, 64, 64, FormatId::q4_0, FormatId::f16, 0, 0}};
  for (const std::uint64_t sinks : {0, 16, 17, 20, 32})
    for (const std::uint64_t recent : {0, 11, 12, 13, 44}) {
      CAPTURE(sinks);
      CAPTURE(recent);
      CoolingModel model(spec, 1, 1);
      model.formats = {FormatId::t3};
      const SequenceId id = model.create();
      model.append({entry(id, 300, 0)});  // 18 pages and 12 tokens
      // The least that can be met: one byte less is refused.
      const Status refused = model.cool(1, sinks, recent).status();
      const std::string text = refused.message();
      const std::uint64_t least = std::stoull(text.substr(text.rfind(' ') + 1));
      CHECK(model.cool(least - 1, sinks, recent).status().code() == StatusCode::resource_exhausted);
      CHECK(model.cooled_pages(0) == 0);
      REQUIRE(model.cool(least, sinks, recent).ok());
      const auto pages = model.pages_of(id, 0);
      for (std::uint64_t page = 0; page < pages.size(); ++page) {
        CAPTURE(page);
        CHECK((model.grade_of(0, pages[page]) != 0) == (page * 16 >= sinks && (page + 1) * 16 + recent <= 300));
      }
      CHECK(model.bytes() == least);
    }
}

TEST_CASE("host cooling: whatever else happens to cooled pages") {
  std::size_t cools = 0, refusals = 0, thaws = 0;
  for (std::uint64_t seed = 0; seed < 16; ++seed) {
    CAPTURE(seed);
    const bool windows = seed % 4 == 3;
    CacheSpec spec = cool_spec(640, windows);
    if (seed % 4 == 1) spec.protection = {.first_tokens = 4, .newest_tokens = 20, .k = true, .v = true};
    CoolingModel model(spec, seed % 2 == 0 ? 2 : 5, seed);
    if (seed % 5 == 0) model.formats = {FormatId::nl4};
    if (seed % 3 == 0) cache_debug(*model.cache).shuffle_free_pages(seed, true);
    model.options.mass = true;
    model.options.lse = true;
    const SequenceId first = model.create();
    model.append({entry(first, model.random.between(60, 200), 3)});
    for (int action = 0; action < 40; ++action) {
      CAPTURE(action);
      const SequenceId id = model.pick();
      const std::uint64_t length = model.sequences[id].length;
      const std::uint32_t roll = model.random.below(100);
      if (roll < 30) {
        const std::uint32_t fresh = model.random.chance(70) ? 1 : model.random.between(1, 40);
        if (model.cache->memory_use().used_pages + 2 * (fresh / 16 + 2) <= model.cache->memory_use().total_pages)
          model.append({entry(id, fresh, model.random.between(1, fresh))}, model.random.chance(80));
      } else if (roll < 60) {
        const std::uint64_t before = model.bytes();
        const auto report = model.cool(before * model.random.between(75, 100) / 100, model.random.below(20), model.random.below(30));
        if (report.ok()) {
          ++cools;
          CHECK(report->bytes_after <= report->bytes_before);
          CHECK(report->bytes_before == before);
          CHECK(report->bytes_after == model.bytes());
        } else {
          ++refusals;
          CHECK(report.status().code() == StatusCode::resource_exhausted);
          CHECK(model.bytes() <= before);
        }
      } else if (roll < 70 && length != 0 && !windows) {
        const std::uint64_t cut = model.random.between(1, static_cast<std::uint32_t>(length));
        model.truncate(id, cut);
        for (auto& of_layer : model.grades[id]) of_layer.resize(std::min<std::size_t>(of_layer.size(), (cut + 15) / 16));
        model.append({entry(id, 1, 1)});
      } else if (roll < 78 && model.sequences.size() < 4 && !windows && model.cache->memory_use().used_pages + 4 < model.cache->memory_use().total_pages) {
        model.fork_cooled(id, model.random.below(static_cast<std::uint32_t>(length) + 1));
      } else if (roll < 82 && model.sequences.size() > 1) {
        model.destroy(id);
        model.grades.erase(id);
      } else if (roll < 88) {
        model.append({entry(id, 0, 2)});
      } else if (roll < 94 && length > 30 && !windows) {
        std::vector<std::uint64_t> kept;
        for (std::uint64_t token = 0; token < length; ++token)
          if (token < 10 || model.random.chance(80)) kept.push_back(token);
        const Status status = model.cache->keep_tokens(id, kept);
        if (status.ok()) model.keep(id, kept);
        REQUIRE_MESSAGE((status.ok() || status.code() == StatusCode::resource_exhausted), status.message());
      } else {
        REQUIRE(cache_debug(*model.cache).poison_free_pages(test::kNan).ok());
        model.check_reads();
      }
      std::set<std::pair<std::uint32_t, std::int32_t>> held;  // by layer group
      for (const auto& [sequence, tokens] : model.sequences)
        for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer)
          for (const std::int32_t page : model.pages_of(sequence, layer))
            if (page >= 0) held.insert({cache_debug(*model.cache).geometry().layers[layer].group, page});
      REQUIRE(model.cache->memory_use().used_pages == held.size());
    }
    model.check_reads();
    thaws += model.thaws;
  }
  CHECK(cools > 30);
  CHECK(refusals > 5);
  CHECK(thaws > 3);
}

}  // namespace
}  // namespace kvant
