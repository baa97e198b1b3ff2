// Small scenarios of the eviction policies whose victims are known beforehand, and the parts that they are made of.
#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "eviction_policy.hpp"
#include "expiry_wheel.hpp"
#include "frequency_sketch.hpp"
#include "ghost_queue.hpp"
#include "host_random.hpp"

namespace kvant {
namespace {

std::unique_ptr<EvictionPolicy> make(const PolicySpec& spec) {
  auto made = EvictionPolicy::create(spec);
  REQUIRE(made.ok());
  return std::move(made).value();
}

std::unique_ptr<EvictionPolicy> make(PolicyKind kind) {
  PolicySpec spec;
  spec.kind = kind;
  spec.capacity_entries = 8;
  return make(spec);
}

EntryFacts facts_of(std::uint64_t fingerprint) { return {fingerprint, 0, 0, 0}; }

void insert_all(EvictionPolicy& policy, std::uint64_t first, std::uint64_t last) {
  for (std::uint64_t id = first; id <= last; ++id) policy.insert(EntryId{id}, facts_of(id), 0);
}

std::vector<std::uint64_t> drain(EvictionPolicy& policy, std::uint64_t now_ms = 0) {
  std::vector<std::uint64_t> ids;
  while (const std::optional<EntryId> id = policy.evict(now_ms)) ids.push_back(static_cast<std::uint64_t>(*id));
  return ids;
}

using Ids = std::vector<std::uint64_t>;

TEST_CASE("policy: names") {
  for (const PolicyKind kind : {PolicyKind::none, PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive})
    CHECK(policy_from_name(policy_name(kind)) == kind);
  CHECK(policy_from_name("fifo") == std::nullopt);
  CHECK(policy_from_name("") == std::nullopt);
}

TEST_CASE("policy: what create refuses") {
  PolicySpec spec;
  spec.kind = static_cast<PolicyKind>(7);
  auto unknown = EvictionPolicy::create(spec);
  REQUIRE_FALSE(unknown.ok());
  CHECK(unknown.status().code() == StatusCode::invalid_argument);
  CHECK(unknown.status().message().find("policy kind (7)") != std::string::npos);
  spec.kind = PolicyKind::adaptive;
  auto empty = EvictionPolicy::create(spec);
  REQUIRE_FALSE(empty.ok());
  CHECK(empty.status().message().find("capacity_entries (0)") != std::string::npos);
}

TEST_CASE("policy none: nothing is evicted, and only what is due expires") {
  PolicySpec spec;
  spec.kind = PolicyKind::none;
  const auto policy = make(spec);
  insert_all(*policy, 1, 3);
  policy->insert(EntryId{4}, {4, 0, 0, 100}, 0);
  CHECK(policy->evict(1000) == std::nullopt);
  std::vector<EntryId> out;
  policy->expire(99, out);
  CHECK(out.empty());
  policy->expire(100, out);
  CHECK(out == std::vector<EntryId>{EntryId{4}});
  CHECK(policy->size() == 3);
}

TEST_CASE("policy lru: hits move to the end") {
  const auto policy = make(PolicyKind::lru);
  insert_all(*policy, 1, 4);
  policy->touch(EntryId{1}, 1);
  policy->touch(EntryId{3}, 2);
  policy->erase(EntryId{4});
  CHECK(drain(*policy) == Ids{2, 1, 3});
  CHECK(policy->size() == 0);
}

TEST_CASE("policy window: insertion counts, and sinks leave last") {
  PolicySpec spec;
  spec.kind = PolicyKind::window;
  spec.sink_entries = 2;
  const auto policy = make(spec);
  for (std::uint32_t depth = 0; depth < 5; ++depth) policy->insert(EntryId{depth}, {depth, depth, 0, 0}, depth);
  policy->touch(EntryId{2}, 9);
  policy->insert(EntryId{5}, {5, 1, 0, 0}, 10);
  // A priority decides among those that the window lets go, and not between them and the sinks.
  policy->insert(EntryId{6}, {6, 7, 90, 0}, 11);
  CHECK(drain(*policy) == Ids{2, 3, 4, 6, 0, 1, 5});
}

TEST_CASE("policy: lower priorities go first") {
  for (const PolicyKind kind : {PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive}) {
    const auto policy = make(kind);
    const std::uint32_t priorities[] = {50, 0, 100, 0, 64, 63};
    for (std::uint64_t id = 0; id < 6; ++id) policy->insert(EntryId{id}, {id, 0, priorities[id], 0}, 0);
    policy->touch(EntryId{1}, 1);
    CHECK(drain(*policy) == (kind == PolicyKind::window ? Ids{1, 3, 0, 5, 4, 2} : Ids{3, 1, 0, 5, 4, 2}));
  }
}

TEST_CASE("policy: a pinned entry stays, and leaves next once it is let go") {
  for (const PolicyKind kind : {PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive}) {
    CAPTURE(policy_name(kind));
    const auto policy = make(kind);
    insert_all(*policy, 1, 4);
    policy->pin(EntryId{1});
    policy->pin(EntryId{1});
    policy->pin(EntryId{3});
    CHECK(policy->evict(0) == EntryId{2});
    policy->unpin(EntryId{1}, 0);
    CHECK(policy->evict(0) == EntryId{4});
    CHECK(policy->evict(0) == std::nullopt);
    CHECK(policy->size() == 2);
    insert_all(*policy, 5, 5);
    policy->unpin(EntryId{1}, 0);
    CHECK(policy->evict(0) == EntryId{1});
    policy->erase(EntryId{3});
    CHECK(drain(*policy) == Ids{5});
  }
}

TEST_CASE("policy: a prefix whose entries pin what they hang on leaves from its end") {
  for (const PolicyKind kind : {PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive}) {
    CAPTURE(policy_name(kind));
    const auto policy = make(kind);
    for (std::uint32_t depth = 0; depth < 4; ++depth) {
      policy->insert(EntryId{depth}, {depth, depth, 0, 0}, 0);
      if (depth > 0) policy->pin(EntryId{depth - 1});
    }
    policy->insert(EntryId{9}, facts_of(9), 0);
    for (std::uint64_t expected = 4; expected-- > 0;) {
      CHECK(policy->evict(0) == EntryId{expected});
      if (expected > 0) policy->unpin(EntryId{expected - 1}, 0);
    }
    CHECK(policy->evict(0) == EntryId{9});
  }
}

TEST_CASE("policy: the expired leave before all others, whatever their priority") {
  for (const PolicyKind kind : {PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive}) {
    CAPTURE(policy_name(kind));
    PolicySpec spec;
    spec.kind = kind;
    spec.capacity_entries = 8;
    spec.ttl_ms = 1000;
    const auto policy = make(spec);
    policy->insert(EntryId{1}, {1, 0, 0, 0}, 0);        // the policy's TTL
    policy->insert(EntryId{2}, {2, 0, 100, 200}, 0);    // its own
    policy->insert(EntryId{3}, {3, 0, 100, 5000}, 0);
    policy->insert(EntryId{4}, {4, 0, 100, 100}, 0);
    policy->pin(EntryId{4});  // in use: it does not expire
    policy->touch(EntryId{2}, 150);
    CHECK(policy->evict(349) == EntryId{1});  // nothing has expired: priority decides
    CHECK(policy->evict(350) == EntryId{2});
    std::vector<EntryId> out;
    policy->expire(4999, out);
    CHECK(out.empty());
    policy->unpin(EntryId{4}, 4999);  // its last use lies far back
    policy->expire(4999, out);
    CHECK(out == std::vector<EntryId>{EntryId{4}});
    policy->expire(5000, out);
    CHECK(out.back() == EntryId{3});
    CHECK(policy->size() == 0);
  }
}

TEST_CASE("policy: a hit in time saves what was about to expire") {
  const auto policy = make(PolicyKind::lru);
  policy->insert(EntryId{1}, {1, 0, 0, 100}, 0);
  for (std::uint64_t now = 90; now < 5000; now += 90) {
    policy->touch(EntryId{1}, now);
    std::vector<EntryId> out;
    policy->expire(now + 99, out);
    REQUIRE(out.empty());
  }
}

TEST_CASE("policy: a TTL beyond the end of time never expires") {
  const auto policy = make(PolicyKind::lru);
  policy->insert(EntryId{1}, {1, 0, 0, UINT64_MAX}, 1000);
  std::vector<EntryId> out;
  policy->expire(UINT64_MAX - 1, out);
  CHECK(out.empty());
}

TEST_CASE("policy adaptive: one-time entries do not displace what comes back") {
  const auto policy = make(PolicyKind::adaptive);
  insert_all(*policy, 1, 4);
  for (std::uint64_t id = 1; id <= 4; ++id) policy->touch(EntryId{id}, 0);
  std::uint64_t next = 100, lost = 0;
  std::vector<bool> held(5, true);
  // Rounds of one-time entries longer than the cache, and the four asked for in between: only trials teach it that.
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 10; ++i) {
      if (policy->size() == 8) {
        const auto left = static_cast<std::uint64_t>(*policy->evict(0));
        if (left <= 4) held[left] = false;
      }
      policy->insert(EntryId{next}, facts_of(next), 0);
      ++next;
    }
    for (std::uint64_t id = 1; id <= 4; ++id) {
      if (held[id]) {
        policy->touch(EntryId{id}, 0);
        continue;
      }
      lost += round >= 100 ? 1 : 0;
      const auto left = static_cast<std::uint64_t>(*policy->evict(0));
      if (left <= 4) held[left] = false;
      policy->insert(EntryId{id}, facts_of(id), 0);
      held[id] = true;
    }
  }
  CHECK(lost == 0);  // lru would lose all four in every round
}

TEST_CASE("frequency sketch: counts to its limit, fades, and never counts too little in between") {
  FrequencySketch sketch(1000);
  for (int i = 0; i < 5; ++i) sketch.add(42);
  CHECK(sketch.estimate(42) == 5);
  CHECK(sketch.estimate(43) == 0);
  for (int i = 0; i < 50; ++i) sketch.add(7);
  CHECK(sketch.estimate(7) == FrequencySketch::kMost);
  test::Random random(1);
  for (int i = 0; i < 9000; ++i) sketch.add(1000 + random.below(500));
  CHECK(sketch.estimate(42) >= 5);
  for (int i = 0; i < 4000; ++i) sketch.add(1000 + random.below(500));
  CHECK(sketch.estimate(42) == 2);  // halved after 10 additions a cell of 1024
}

TEST_CASE("ghost queue: the last ones only, each taken once") {
  GhostQueue ghosts(3);
  for (std::uint64_t fingerprint : {1, 2, 3, 4}) ghosts.add(fingerprint);
  CHECK(ghosts.size() == 3);
  CHECK_FALSE(ghosts.take(1));
  CHECK(ghosts.take(3));
  CHECK_FALSE(ghosts.take(3));
  ghosts.add(2);  // again: its older place no longer counts
  ghosts.add(5);
  CHECK(ghosts.take(2));
  CHECK(ghosts.take(5));
  CHECK(ghosts.take(4));
  CHECK(ghosts.size() == 0);
}

TEST_CASE("expiry wheel: deadlines near and far come due at their millisecond") {
  test::Random random(3);
  for (int round = 0; round < 50; ++round) {
    ExpiryWheel wheel;
    std::vector<PolicyEntry> entries(200);
    std::uint64_t now = round % 2 == 0 ? 0 : (std::uint64_t{1} << random.below(60)) - 3;
    wheel.advance(now);
    for (PolicyEntry& entry : entries) {
      entry.last_use_ms = now;
      entry.facts.ttl_ms = 1 + (std::uint64_t{random.below(1u << 30)} << random.below(20) >> random.below(31));
      wheel.schedule(entry, entry.deadline_ms());
    }
    std::size_t left = entries.size();
    for (std::size_t i = 0; i < entries.size(); i += 7, --left) wheel.cancel(entries[i]);
    while (left > 0) {
      std::uint64_t next = UINT64_MAX;
      for (const PolicyEntry& entry : entries)
        if (entry.timed) next = std::min(next, entry.deadline_ms());
      if (random.chance(50)) {
        wheel.advance(next - 1);
        REQUIRE(wheel.pop_due() == nullptr);
      }
      now = next + (random.chance(50) ? 0 : random.below(1u << random.below(25)));
      wheel.advance(now);
      std::size_t expected = 0, got = 0;
      for (const PolicyEntry& entry : entries) expected += entry.timed && entry.deadline_ms() <= now ? 1 : 0;
      while (PolicyEntry* entry = wheel.pop_due()) {
        REQUIRE(entry->deadline_ms() <= now);
        ++got;
      }
      REQUIRE(got == expected);
      left -= got;
    }
  }
}

}  // namespace
}  // namespace kvant
