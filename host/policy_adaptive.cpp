// adaptive: new entries are on trial in a small queue and enter the main one when they come back (S3-FIFO's small, main
// and ghost queues, both in order of use); a frequency sketch guards the main queue, and what comes back decides how
// long a trial is.
#include <algorithm>

#include "frequency_sketch.hpp"
#include "ghost_queue.hpp"
#include "policy_base.hpp"

namespace kvant {

namespace {

// ARC's step is 1 / capacity a ghost hit; four times as quick follows a change of traffic within a quarter of a cache's
// turnover.
constexpr double kStep = 4.0;
constexpr double kMostHaste = 128.0;

enum Queue : std::uint8_t { kSmall, kMain };

class AdaptivePolicy final : public PolicyBase {
 public:
  explicit AdaptivePolicy(const PolicySpec& spec)
      : PolicyBase(spec),
        queues_(kPriorities),
        small_ghosts_(spec.capacity_entries),
        main_ghosts_(spec.capacity_entries),
        sketch_(spec.capacity_entries) {}

 private:
  struct Queues {
    OrderList small;
    OrderList main;
  };

  OrderList& list_of(const PolicyEntry& entry) {
    Queues& queues = queues_[entry.rank];
    return entry.queue == kSmall ? queues.small : queues.main;
  }
  void push_back(PolicyEntry& entry, Queue queue) {
    entry.queue = queue;
    entry.stamp = ++clock_;
    list_of(entry).push_back(entry);
    ranks_.add(entry.rank);
  }

  // As in ARC, a return counts the more, the fewer ghosts of its queue there are among those of both.
  double step(const GhostQueue& hit, const GhostQueue& other) const {
    const double ratio = (1.0 + static_cast<double>(other.size())) / (1.0 + static_cast<double>(hit.size()));
    return kStep * std::max(ratio, 1.0) / static_cast<double>(spec().capacity_entries);
  }

  // What is back from the main queue would have stayed, had trials been shorter; what is back from its trial, had they
  // been longer.
  bool came_back(std::uint64_t fingerprint) {
    if (small_ghosts_.take(fingerprint)) {
      haste_ = std::max(haste_ / (1.0 + step(small_ghosts_, main_ghosts_)), 1.0);
      return true;
    }
    if (main_ghosts_.take(fingerprint)) {
      haste_ = std::min(haste_ * (1.0 + step(main_ghosts_, small_ghosts_)), kMostHaste);
      return true;
    }
    return false;
  }

  // Of the two oldest, the older one leaves, where entries on trial age `haste_` times as fast: at 1 this is lru.
  bool trial_ends_next(const Queues& queues) const {
    const PolicyEntry* on_trial = queues.small.front();
    const PolicyEntry* proven = queues.main.front();
    return proven == nullptr || (on_trial != nullptr && age(*on_trial) * haste_ >= age(*proven));
  }

  // The filter: what would displace an entry of the main queue must have been seen more often than that one.
  bool admitted(std::uint64_t fingerprint, const Queues& queues) const {
    return trial_ends_next(queues) ||
           sketch_.estimate(fingerprint) > sketch_.estimate(queues.main.front()->facts.fingerprint);
  }

  void add(PolicyEntry& entry) override {
    const std::uint64_t fingerprint = entry.facts.fingerprint;
    sketch_.add(fingerprint);
    const bool to_main = came_back(fingerprint) && admitted(fingerprint, queues_[entry.rank]);
    push_back(entry, to_main ? kMain : kSmall);
  }
  void use(PolicyEntry& entry) override {
    sketch_.add(entry.facts.fingerprint);
    if (!entry.parked) list_of(entry).remove(entry);
    entry.parked = false;
    push_back(entry, kMain);
  }
  void come_back(PolicyEntry& entry) override {
    list_of(entry).push_front(entry);
    ranks_.add(entry.rank);
  }
  void remove(PolicyEntry& entry) override { list_of(entry).remove(entry); }

  PolicyEntry* choose() override {
    for (std::uint32_t rank = ranks_.lowest(); rank != RankSet::kNone; rank = ranks_.lowest()) {
      if (PolicyEntry* entry = choose(queues_[rank])) return entry;
      ranks_.remove(rank);
    }
    return nullptr;
  }

  PolicyEntry* choose(Queues& queues) {
    park_pinned(queues.small);
    park_pinned(queues.main);
    if (queues.small.empty() && queues.main.empty()) return nullptr;
    const bool from_small = trial_ends_next(queues);
    OrderList& list = from_small ? queues.small : queues.main;
    PolicyEntry& entry = *list.front();
    list.remove(entry);
    (from_small ? small_ghosts_ : main_ghosts_).add(entry.facts.fingerprint);
    return &entry;
  }

  static void park_pinned(OrderList& list) {
    while (!list.empty() && list.front()->pins > 0) {
      PolicyEntry& entry = *list.front();
      list.remove(entry);
      entry.parked = true;
    }
  }

  double age(const PolicyEntry& entry) const { return static_cast<double>(clock_ - entry.stamp); }

  std::vector<Queues> queues_;  // one pair a rank
  RankSet ranks_;
  GhostQueue small_ghosts_, main_ghosts_;
  FrequencySketch sketch_;
  double haste_ = 1.0;
  std::uint64_t clock_ = 0;  // counts insertions and hits
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_adaptive_policy(const PolicySpec& spec) {
  return std::make_unique<AdaptivePolicy>(spec);
}

}  // namespace kvant
