// The figures of `kvant replay`: by hand on tiny traces, the optimum against every possible choice, and what adaptive promises.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "host_random.hpp"
#include "replay_generate.hpp"
#include "replay_read.hpp"
#include "replay_run.hpp"

namespace kvant::tools {
namespace {

const std::string kFolder = std::string(KVANT_SOURCE_DIR) + "/tests/traces/";

Trace tiny() {
  auto trace = read_trace(kFolder + "tiny.jsonl", TraceFormat::kMooncake, {4, 10});
  REQUIRE(trace.ok());
  return *trace;
}

double points(double rate, double other) { return 100 * (rate - other); }

TEST_CASE("replay figures: the tiny trace by hand") {
  const Trace trace = tiny();
  const ReplayFigures infinite = replay_infinite(trace);
  CHECK(infinite.requests == 6);
  CHECK(infinite.pages == 14);
  CHECK(infinite.hit_pages == 8);  // 0 + 2 + 0 + 2 + 3 + 1
  CHECK(infinite.tokens == 52);
  CHECK(infinite.hit_tokens == 8 + 8 + 11 + 4);
  CHECK(infinite.stored_pages == 6);
  CHECK(infinite.evicted_pages == 0);
  CHECK(infinite.most_bytes == 60);
  // Three pages: [1 2], [1 2 3] hits 2; [9 2] drives out 3, then 2; [1 2 4] hits 1, drives out 2 of 9, then 9;
  // [1 2 3] hits 1 2, drives out 4; [9] drives out 3.
  const ReplayFigures lru = replay(trace, {"lru", 30, 0, 0});
  CHECK(lru.hit_pages == 2 + 0 + 1 + 2 + 0);
  CHECK(lru.evicted_pages == 6);
  CHECK(lru.stored_bytes == 90);
  CHECK(lru.evicted_bytes == 60);
  CHECK(lru.most_bytes == 30);
  CHECK(lru.refused_pages == 0);
  // The first three pages stay: hits 0 2 0 2 3 0.
  const ReplayFigures none = replay(trace, {"none", 30, 0, 0});
  CHECK(none.hit_pages == 7);
  CHECK(none.refused_pages == 2 + 1 + 1);
  CHECK(none.evicted_pages == 0);
  CHECK(replay_optimum(trace, 30).hit_pages == 7);
  // A request that is longer than the cache stores what fits, and does not drive out its own beginning.
  const ReplayFigures two = replay(trace, {"lru", 20, 0, 0});
  CHECK(two.most_bytes == 20);
  CHECK(two.hit_pages == 2 + 0 + 0 + 2 + 0);
}

TEST_CASE("replay figures: expiry") {
  const Trace trace = tiny();
  CHECK(replay(trace, {"lru", 600, 3001, 0}).hit_pages == 8);  // the longest pause is 3 s
  // 3 of second 1 is gone at second 4, and 9 of second 2 with what hangs on it at second 5.
  const ReplayFigures kept = replay(trace, {"lru", 600, 2999, 0});
  CHECK(kept.hit_pages == 2 + 2 + 2);
  CHECK(kept.expired_pages == 3);
  const ReplayFigures brief = replay(trace, {"lru", 600, 1000, 0});
  CHECK(brief.hit_pages == 0);
  CHECK(brief.expired_pages == 13);
  CHECK(brief.stored_pages == 14);
}

TEST_CASE("replay figures: objects by hand") {
  const auto trace = read_trace(kFolder + "tiny.csv", TraceFormat::kCsv, {});
  REQUIRE(trace.ok());
  // a and b fill 400, a hits; c drives out b, b drives out a, and a drives out c.
  const ReplayFigures lru = replay(*trace, {"lru", 400, 0, 0});
  CHECK(lru.hit_pages == 1);
  CHECK(lru.hit_bytes == 100);
  const ReplayFigures infinite = replay_infinite(*trace);
  CHECK(infinite.hit_pages == 3);
  CHECK(infinite.hit_bytes == 500);
  // Reuses cost 200 (a), 900 (b) and 300 (a) of 6 * 400: all fit.
  CHECK(replay_bound(*trace, 400).hit_pages == 3);
  // Of 6 * 100: a, a, and a part of b, but that is larger than the cache.
  CHECK(replay_bound(*trace, 100).hit_pages == 2);
  CHECK(replay_bound(*trace, 100).hit_bytes == 200);
  CHECK(replay(*trace, {"lru", 100, 0, 0}).hit_pages == 1);  // b does not fit and drives nothing out; c does
}

// The most hits that any choice of leaves to evict and of pages not to store can reach, by trying all.
class Exhaustive {
 public:
  Exhaustive(const Trace& trace, size_t capacity) : trace_(trace), capacity_(capacity) {}
  uint64_t best() { return best_from(0, {}); }

 private:
  using Set = std::set<uint32_t>;

  uint64_t best_from(size_t request, const Set& held) {
    if (request == trace_.requests.size()) return 0;
    const auto [place, is_new] = known_.try_emplace({request, held}, 0);
    if (!is_new) return place->second;
    const std::vector<uint32_t>& path = trace_.requests[request].pages;
    size_t hits = 0;
    while (hits < path.size() && held.count(path[hits]) != 0) ++hits;
    Set all = held;
    all.insert(path.begin(), path.end());
    // Afterwards any part of what was there and of the request may be held that is whole prefixes and fits.
    uint64_t best = 0;
    const std::vector<uint32_t> pages(all.begin(), all.end());
    for (uint32_t choice = 0; choice < (1u << pages.size()); ++choice) {
      Set next;
      for (size_t i = 0; i < pages.size(); ++i)
        if ((choice >> i & 1) != 0) next.insert(pages[i]);
      const bool whole = std::all_of(next.begin(), next.end(), [&](uint32_t page) {
        return trace_.pages[page].parent == kNoParent || next.count(trace_.pages[page].parent) != 0;
      });
      if (whole && next.size() <= capacity_) best = std::max(best, best_from(request + 1, next));
    }
    return known_[{request, held}] = hits + best;
  }

  const Trace& trace_;
  size_t capacity_;
  std::map<std::pair<size_t, Set>, uint64_t> known_;
};

TEST_CASE("replay figures: no choice of leaves beats the optimum, and one reaches it") {
  test::Random random(11);
  uint64_t hits = 0;
  for (int round = 0; round < 60; ++round) {
    Trace trace;
    trace.page_tokens = 1;
    TraceBuilder builder(trace);
    while (trace.requests.size() < 9) {
      std::vector<uint64_t> ids;
      for (uint32_t length = 1 + random.below(3); length > 0; --length) ids.push_back(random.below(2));
      if (trace.pages.size() < 8) builder.add_path(0, ids.size(), ids, 1);
      else trace.requests.push_back(trace.requests[random.below(static_cast<uint32_t>(trace.requests.size()))]);
    }
    const uint64_t capacity = 1 + random.below(5);
    uint64_t path_hits = 0;
    const ReplayFigures optimum = replay_optimum(trace, capacity, &path_hits);
    REQUIRE(optimum.hit_pages == Exhaustive(trace, capacity).best());
    REQUIRE(optimum.hit_pages == path_hits);
    REQUIRE(optimum.most_bytes <= capacity);
    hits += path_hits;
  }
  CHECK(hits > 200);
}

TEST_CASE("replay figures: every policy lies between nothing and the optimum") {
  for (const std::string& name : trace_kind_names()) {
    const auto trace = read_trace(kFolder + name + ".jsonl", TraceFormat::kMooncake, {512, 3});
    REQUIRE(trace.ok());
    const ReplayFigures infinite = replay_infinite(*trace);
    for (const uint64_t capacity : {uint64_t{3}, uint64_t{60}, uint64_t{300}, uint64_t{1500}, trace->distinct_bytes()}) {
      uint64_t path_hits = 0;
      const ReplayFigures optimum = replay_optimum(*trace, capacity, &path_hits);
      CHECK(optimum.hit_pages == path_hits);
      CHECK(optimum.hit_pages <= infinite.hit_pages);
      CHECK(replay_bound(*trace, capacity).hit_pages >= optimum.hit_pages);
      for (const std::string& policy : replay_policies()) {
        CAPTURE(name);
        CAPTURE(policy);
        CAPTURE(capacity);
        const ReplayFigures figures = replay(*trace, {policy, capacity, 0, 2});
        CHECK(figures.hit_pages <= optimum.hit_pages);
        CHECK(figures.most_bytes <= capacity);
        CHECK(figures.pages == infinite.pages);
        CHECK(figures.hit_pages + figures.stored_pages + figures.refused_pages == figures.pages);
        CHECK((policy == "none" ? figures.evicted_pages == 0 : true));
        if (capacity == trace->distinct_bytes()) CHECK(figures.hit_pages == infinite.hit_pages);
      }
    }
  }
}

TEST_CASE("replay figures: bounds of unequal objects hold for every policy") {
  test::Random random(4);
  for (int round = 0; round < 20; ++round) {
    Trace trace;
    TraceBuilder builder(trace);
    for (uint64_t i = 0; i < 500; ++i) {
      const uint64_t id = std::min(random.below(40), random.below(40));
      builder.add_object(i, id, 1 + id * 7 % 31);
    }
    for (const uint64_t capacity : {20, 60, 150, 400}) {
      const ReplayFigures bound = replay_bound(trace, capacity);
      for (const std::string& policy : replay_policies()) {
        const ReplayFigures figures = replay(trace, {policy, capacity, 0, 0});
        CHECK(figures.hit_pages <= bound.hit_pages);
        CHECK(figures.hit_bytes <= bound.hit_bytes);
        CHECK(figures.most_bytes <= capacity);
      }
    }
  }
}

// Never more than two points below lru, and above it where one-time pages dominate.
TEST_CASE("replay figures: adaptive beside lru on the built-in traces") {
  for (const std::string& name : trace_kind_names()) {
    double sum = 0;
    int count = 0;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      GenerateOptions options;
      options.kind = *trace_kind_from_name(name);
      options.seed = seed;
      options.requests = 2000;
      const Trace trace = generate_trace(options, 1);
      for (const double share : {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4}) {
        CAPTURE(name);
        CAPTURE(seed);
        CAPTURE(share);
        const auto capacity = static_cast<uint64_t>(share * static_cast<double>(trace.distinct_bytes()));
        const ReplayFigures lru = replay(trace, {"lru", capacity, 0, 0});
        const ReplayFigures adaptive = replay(trace, {"adaptive", capacity, 0, 0});
        const double gain = points(adaptive.page_rate(), lru.page_rate());
        CHECK(gain >= -2.0);
        CHECK(points(adaptive.token_rate(), lru.token_rate()) >= -2.0);
        // Unless even lru holds nearly all that ever comes back.
        if (name == "once" && lru.page_rate() < 0.97 * replay_infinite(trace).page_rate()) CHECK(gain > 0.25);
        sum += gain;
        ++count;
      }
    }
    MESSAGE(name << ": adaptive is " << sum / count << " points above lru in the mean");
    if (name == "once" || name == "shared") CHECK(sum / count > 1.0);
  }
}

TEST_CASE("replay figures: adaptive beside lru on the sample files") {
  for (const std::string& name : trace_kind_names()) {
    const auto trace = read_trace(kFolder + name + ".jsonl", TraceFormat::kMooncake, {512, 1});
    REQUIRE(trace.ok());
    for (const uint64_t capacity : {10, 30, 100, 300, 1000}) {
      CAPTURE(name);
      CAPTURE(capacity);
      CHECK(points(replay(*trace, {"adaptive", capacity, 0, 0}).page_rate(),
                   replay(*trace, {"lru", capacity, 0, 0}).page_rate()) >= -2.0);
    }
  }
  const auto objects = read_trace(kFolder + "objects.csv", TraceFormat::kCsv, {});
  REQUIRE(objects.ok());
  for (const uint64_t pages : {10, 30, 100, 300}) {
    const uint64_t capacity = pages * objects->page_bytes();
    CHECK(points(replay(*objects, {"adaptive", capacity, 0, 0}).page_rate(),
                 replay(*objects, {"lru", capacity, 0, 0}).page_rate()) >= -2.0);
  }
}

// A loop just longer than the cache: lru holds each page until right before its next use, and the optimum shows what is lost.
TEST_CASE("replay figures: a loop") {
  Trace trace;
  TraceBuilder builder(trace);
  for (uint64_t i = 0; i < 30000; ++i) builder.add_object(i, i % 300, 1);
  CHECK(replay(trace, {"lru", 250, 0, 0}).hit_pages == 0);
  CHECK(replay_optimum(trace, 250).page_rate() > 0.8);
}

}  // namespace
}  // namespace kvant::tools
