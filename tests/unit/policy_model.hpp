// Eviction policies in plain words: vectors that are searched from end to end, to compare the real ones with.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "eviction_policy.hpp"
#include "frequency_sketch.hpp"

namespace kvant::test {

// The fingerprints that left last. What was taken out keeps its place until that falls out of the end.
class GhostModel {
 public:
  explicit GhostModel(std::uint64_t capacity) : capacity_(capacity) {}
  std::uint64_t size() const {
    return static_cast<std::uint64_t>(std::count_if(places_.begin(), places_.end(), [](auto& p) { return p.has_value(); }));
  }
  bool take(std::uint64_t fingerprint) {
    for (auto& place : places_)
      if (place == fingerprint) {
        place.reset();
        return true;
      }
    return false;
  }
  void add(std::uint64_t fingerprint) {
    take(fingerprint);
    places_.push_back(fingerprint);
    if (places_.size() > capacity_) places_.erase(places_.begin());
  }

 private:
  std::uint64_t capacity_;
  std::vector<std::optional<std::uint64_t>> places_;
};

class PolicyModel {
 public:
  explicit PolicyModel(const PolicySpec& spec)
      : spec_(spec), ghosts_{GhostModel(spec.capacity_entries), GhostModel(spec.capacity_entries)},
        sketch_(spec.capacity_entries) {}

  std::uint64_t size() const { return entries_.size(); }
  bool holds(std::uint64_t id) const { return entries_.count(id) != 0; }
  std::uint64_t pins(std::uint64_t id) const { return entries_.at(id).pins; }

  void insert(std::uint64_t id, EntryFacts facts, std::uint64_t now) {
    if (facts.ttl_ms == 0) facts.ttl_ms = spec_.ttl_ms;
    Entry entry{facts, now, 0, false, key(facts.priority, 0), 0};
    if (spec_.kind == PolicyKind::window && facts.depth < spec_.sink_entries) entry.queue = key(facts.priority + 1000, 0);
    if (spec_.kind == PolicyKind::adaptive) {
      sketch_.add(facts.fingerprint);
      for (const std::size_t from : {std::size_t{0}, std::size_t{1}}) {
        if (!ghosts_[from].take(facts.fingerprint)) continue;
        const double mine = 1.0 + static_cast<double>(ghosts_[from].size());
        const double other = 1.0 + static_cast<double>(ghosts_[1 - from].size());
        const double step = 1.0 + 4.0 * std::max(other / mine, 1.0) / static_cast<double>(spec_.capacity_entries);
        haste_ = std::clamp(from == 0 ? haste_ / step : haste_ * step, 1.0, 128.0);
        if (from_small(facts.priority) || seen(facts) > seen(entries_.at(queues_[key(facts.priority, 1)][0]).facts))
          entry.queue = key(facts.priority, 1);
        break;
      }
    }
    entry.stamp = ++clock_;
    entries_.emplace(id, entry);
    queues_[entry.queue].push_back(id);
  }

  void touch(std::uint64_t id, std::uint64_t now) {
    Entry& entry = entries_.at(id);
    entry.last_use = now;
    if (spec_.kind != PolicyKind::lru && spec_.kind != PolicyKind::adaptive) return;
    leave(id);
    entry.parked = false;
    entry.stamp = ++clock_;
    if (spec_.kind == PolicyKind::adaptive) {
      sketch_.add(entry.facts.fingerprint);
      entry.queue = key(entry.facts.priority, 1);
    }
    queues_[entry.queue].push_back(id);
  }

  void pin(std::uint64_t id) { ++entries_.at(id).pins; }
  void unpin(std::uint64_t id) {
    Entry& entry = entries_.at(id);
    if (--entry.pins > 0 || !entry.parked) return;
    entry.parked = false;
    queues_[entry.queue].insert(queues_[entry.queue].begin(), id);
  }
  void erase(std::uint64_t id) {
    leave(id);
    entries_.erase(id);
  }

  std::set<std::uint64_t> expired(std::uint64_t now) const {
    std::set<std::uint64_t> ids;
    for (const auto& [id, entry] : entries_)
      if (entry.pins == 0 && entry.facts.ttl_ms > 0 && entry.last_use + entry.facts.ttl_ms <= now) ids.insert(id);
    return ids;
  }

  // The next to leave where nothing has expired.
  std::optional<std::uint64_t> evict() {
    if (spec_.kind == PolicyKind::none) return std::nullopt;
    for (std::uint32_t rank = 0; rank < 2000; ++rank) {
      park(key(rank, 0));
      park(key(rank, 1));
      if (queues_[key(rank, 0)].empty() && queues_[key(rank, 1)].empty()) continue;
      const std::uint32_t which = from_small(rank) ? 0 : 1;
      const std::uint64_t id = queues_[key(rank, which)][0];
      if (spec_.kind == PolicyKind::adaptive) ghosts_[which].add(entries_.at(id).facts.fingerprint);
      erase(id);
      return id;
    }
    return std::nullopt;
  }

 private:
  struct Entry {
    EntryFacts facts;
    std::uint64_t last_use;
    std::uint64_t pins;
    bool parked;
    std::uint32_t queue;
    std::uint64_t stamp;
  };

  static std::uint32_t key(std::uint32_t rank, std::uint32_t which) { return 2 * rank + which; }
  int seen(const EntryFacts& facts) const { return sketch_.estimate(facts.fingerprint); }
  double age(std::uint64_t id) const { return static_cast<double>(clock_ - entries_.at(id).stamp); }
  bool from_small(std::uint32_t rank) {
    const std::vector<std::uint64_t>&small = queues_[key(rank, 0)], &main = queues_[key(rank, 1)];
    return main.empty() || (!small.empty() && age(small[0]) * haste_ >= age(main[0]));
  }
  void leave(std::uint64_t id) {
    std::vector<std::uint64_t>& queue = queues_[entries_.at(id).queue];
    queue.erase(std::remove(queue.begin(), queue.end(), id), queue.end());
  }
  // Pinned entries whose turn it is step aside, and come back to the front when they are let go.
  void park(std::uint32_t queue) {
    std::vector<std::uint64_t>& ids = queues_[queue];
    while (!ids.empty() && entries_.at(ids[0]).pins > 0) {
      entries_.at(ids[0]).parked = true;
      ids.erase(ids.begin());
    }
  }

  PolicySpec spec_;
  std::map<std::uint64_t, Entry> entries_;
  std::map<std::uint32_t, std::vector<std::uint64_t>> queues_;
  std::array<GhostModel, 2> ghosts_;
  FrequencySketch sketch_;
  double haste_ = 1.0;
  std::uint64_t clock_ = 0;
};

}  // namespace kvant::test
