// Thousands of random operations on each policy, beside the plain model: pins, priorities, TTL and returning fingerprints.
#include <doctest/doctest.h>

#include <memory>

#include "host_random.hpp"
#include "policy_model.hpp"

namespace kvant {
namespace {

std::uint64_t number(EntryId id) { return static_cast<std::uint64_t>(id); }

class Comparison {
 public:
  Comparison(const PolicySpec& spec, std::uint32_t seed) : spec_(spec), random_(seed), model_(spec) {
    auto made = EvictionPolicy::create(spec);
    REQUIRE(made.ok());
    policy_ = std::move(made).value();
  }

  void step() {
    now_ += random_.chance(5) ? random_.below(3000) : random_.below(20);
    const std::uint32_t action = random_.below(100);
    if (action < 40) {
      if (model_.size() >= spec_.capacity_entries) evict();
      insert();
    } else if (ids_.empty() || action < 45) {
      evict();
    } else if (action < 47) {
      expire();
    } else {
      change(action, ids_[random_.below(static_cast<std::uint32_t>(ids_.size()))]);
    }
    REQUIRE(policy_->size() == model_.size());
  }

  // Lets go of everything: what is left must come out to the last entry.
  void finish() {
    for (const std::uint64_t id : ids_)
      while (model_.pins(id) > 0) unpin(id);
    while (spec_.kind != PolicyKind::none && model_.size() > 0) evict();
    expire();
    CHECK((spec_.kind == PolicyKind::none || policy_->size() == 0));
  }

  std::uint64_t evictions = 0, expirations = 0, refusals = 0;

 private:
  void insert() {
    EntryFacts facts;
    facts.fingerprint = random_.below(static_cast<std::uint32_t>(3 * spec_.capacity_entries));
    facts.depth = random_.below(6);
    facts.priority = random_.chance(70) ? 0 : random_.chance(50) ? 100 : random_.below(101);
    facts.ttl_ms = random_.chance(20) ? 1 + random_.below(5000) : 0;
    const std::uint64_t id = next_id_++;
    policy_->insert(EntryId{id}, facts, now_);
    model_.insert(id, facts, now_);
    ids_.push_back(id);
  }

  void change(std::uint32_t action, std::uint64_t id) {
    if (action < 75) {
      policy_->touch(EntryId{id}, now_);
      model_.touch(id, now_);
    } else if (action < 83) {
      policy_->pin(EntryId{id});
      model_.pin(id);
    } else if (action < 97) {
      if (model_.pins(id) > 0) unpin(id);
    } else {
      policy_->erase(EntryId{id});
      model_.erase(id);
      forget(id);
    }
  }

  void unpin(std::uint64_t id) {
    policy_->unpin(EntryId{id}, now_);
    model_.unpin(id);
  }

  void forget(std::uint64_t id) { ids_.erase(std::find(ids_.begin(), ids_.end(), id)); }

  void evict() {
    const std::optional<EntryId> left = policy_->evict(now_);
    const std::set<std::uint64_t> expired = model_.expired(now_);
    if (!expired.empty() && spec_.kind != PolicyKind::none) {
      REQUIRE(left.has_value());
      REQUIRE(expired.count(number(*left)) == 1);
      model_.erase(number(*left));
      ++expirations;
    } else {
      const std::optional<std::uint64_t> expected = model_.evict();
      REQUIRE(left.has_value() == expected.has_value());
      if (left.has_value()) REQUIRE(number(*left) == *expected);
      left.has_value() ? ++evictions : ++refusals;
    }
    if (left.has_value()) forget(number(*left));
  }

  void expire() {
    std::vector<EntryId> out;
    policy_->expire(now_, out);
    std::set<std::uint64_t> ids;
    for (const EntryId id : out) ids.insert(number(id));
    REQUIRE(ids.size() == out.size());
    REQUIRE(ids == model_.expired(now_));
    for (const std::uint64_t id : ids) {
      model_.erase(id);
      forget(id);
    }
    expirations += out.size();
  }

  PolicySpec spec_;
  test::Random random_;
  test::PolicyModel model_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<std::uint64_t> ids_;
  std::uint64_t next_id_ = 1, now_ = 0;
};

TEST_CASE("policy: random operations agree with a plain model") {
  for (const PolicyKind kind : {PolicyKind::none, PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive}) {
    std::uint64_t evictions = 0, expirations = 0, refusals = 0;
    for (std::uint32_t seed = 0; seed < 40; ++seed) {
      CAPTURE(policy_name(kind));
      CAPTURE(seed);
      PolicySpec spec;
      spec.kind = kind;
      spec.capacity_entries = 2 + seed * 2;
      spec.ttl_ms = seed % 2 == 0 ? 0 : 2000;
      spec.sink_entries = seed % 3;
      Comparison comparison(spec, seed);
      for (int step = 0; step < 2000; ++step) comparison.step();
      comparison.finish();
      evictions += comparison.evictions;
      expirations += comparison.expirations;
      refusals += comparison.refusals;
    }
    // Each branch of the comparison was taken, else it proves nothing.
    CHECK(expirations > 1000);
    CHECK(refusals > 100);
    CHECK((evictions > 10000) == (kind != PolicyKind::none));
  }
}

TEST_CASE("policy: the same calls give the same victims") {
  for (const PolicyKind kind : {PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive}) {
    std::vector<std::uint64_t> first;
    for (int round = 0; round < 2; ++round) {
      PolicySpec spec;
      spec.kind = kind;
      spec.capacity_entries = 50;
      auto made = EvictionPolicy::create(spec);
      REQUIRE(made.ok());
      EvictionPolicy& policy = *made.value();
      test::Random random(5);
      std::vector<std::uint64_t> victims;
      std::set<std::uint64_t> held;
      for (int step = 0; step < 3000; ++step) {
        const std::uint64_t id = random.below(120);
        if (held.count(id) != 0) {
          policy.touch(EntryId{id}, 0);
          continue;
        }
        if (held.size() == 50) {
          victims.push_back(number(*policy.evict(0)));
          held.erase(victims.back());
        }
        policy.insert(EntryId{id}, {id, 0, 0, 0}, 0);
        held.insert(id);
      }
      if (round == 0) first = victims;
      CHECK(victims == first);
      CHECK(victims.size() > 100);
    }
  }
}

}  // namespace
}  // namespace kvant
