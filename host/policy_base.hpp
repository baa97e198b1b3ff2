// PolicyBase: pins, TTL and priorities, alike for every policy. What is left to a policy is the order in which entries
// leave.
#pragma once

#include <array>
#include <unordered_map>

#include "expiry_wheel.hpp"

namespace kvant {

// Which of the ranks hold entries; the lowest one is found in constant time.
class RankSet {
 public:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  void add(std::uint32_t rank) { words_[rank / 64] |= std::uint64_t{1} << rank % 64; }
  void remove(std::uint32_t rank) { words_[rank / 64] &= ~(std::uint64_t{1} << rank % 64); }
  std::uint32_t lowest() const;

 private:
  std::array<std::uint64_t, 4> words_ = {};
};

class PolicyBase : public EvictionPolicy {
 public:
  static constexpr std::uint32_t kPriorities = 101;  // 0..100
  static constexpr std::uint32_t kRanks = 2 * kPriorities;

  explicit PolicyBase(const PolicySpec& spec) : spec_(spec) {}

  void insert(EntryId id, const EntryFacts& facts, std::uint64_t now_ms) final;
  void touch(EntryId id, std::uint64_t now_ms) final;
  void pin(EntryId id) final;
  void unpin(EntryId id, std::uint64_t now_ms) final;
  void erase(EntryId id) final;
  std::optional<EntryId> evict(std::uint64_t now_ms) final;
  void expire(std::uint64_t now_ms, std::vector<EntryId>& out) final;
  std::uint64_t size() const final { return entries_.size(); }

 protected:
  const PolicySpec& spec() const { return spec_; }

  // Pinned entries stay in their queues until it is their turn to leave: then they are parked outside of it, so that
  // none is looked at twice. A parked entry whose pins are gone comes back as the next to leave, which is where it
  // stood.
  virtual void add(PolicyEntry& entry) = 0;        // new
  virtual void use(PolicyEntry& entry) = 0;        // a hit; may be parked
  virtual void come_back(PolicyEntry& entry) = 0;  // was parked
  virtual void remove(PolicyEntry& entry) = 0;     // is not parked
  // Removes the entry to leave next; null: none may. Parks what is pinned.
  virtual PolicyEntry* choose() = 0;

 private:
  PolicyEntry& at(EntryId id);
  void start_timer(PolicyEntry& entry);
  PolicyEntry* take_expired(std::uint64_t now_ms);  // out of its queue; null: none
  void take_out(PolicyEntry& entry);
  EntryId forget(PolicyEntry& entry);

  PolicySpec spec_;
  std::unordered_map<std::uint64_t, PolicyEntry> entries_;
  ExpiryWheel wheel_;
};

// One list a rank, from the next entry to leave to the last one: all that lru and window need.
class RankedLists {
 public:
  RankedLists() : lists_(PolicyBase::kRanks) {}

  void push_back(PolicyEntry& entry) {
    lists_[entry.rank].push_back(entry);
    ranks_.add(entry.rank);
  }
  void push_front(PolicyEntry& entry) {
    lists_[entry.rank].push_front(entry);
    ranks_.add(entry.rank);
  }
  void remove(PolicyEntry& entry) { lists_[entry.rank].remove(entry); }
  // Removes the first entry that is not pinned and parks those before it.
  PolicyEntry* pop();

 private:
  std::vector<OrderList> lists_;
  RankSet ranks_;
};

std::unique_ptr<EvictionPolicy> make_none_policy(const PolicySpec& spec);
std::unique_ptr<EvictionPolicy> make_lru_policy(const PolicySpec& spec);
std::unique_ptr<EvictionPolicy> make_window_policy(const PolicySpec& spec);
std::unique_ptr<EvictionPolicy> make_adaptive_policy(const PolicySpec& spec);

}  // namespace kvant
