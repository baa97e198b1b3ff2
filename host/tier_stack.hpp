// TierStack: a cache's colder tiers, nearest first, behind one worker thread. Stores are asynchronous and go to every tier; loads ask
// the tiers in order and bring what a farther one had to the nearer ones. Thread rule: any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "tier.hpp"

namespace kvant {

struct TierStackStats {
  struct Named {
    std::string name;
    TierStats stats;
  };
  std::vector<Named> tiers;
  std::uint64_t dropped_stores = 0;    // the queue was full, or memory ran out
  std::uint64_t declined_loads = 0;    // entries that were there, and computing them anew was quicker
  std::uint64_t queued_bytes = 0;
};

class TierStack {
 public:
  // `queue_bytes` bounds what waits to be stored; beyond it stores are dropped, since the engine must not wait for a disk.
  TierStack(std::vector<std::unique_ptr<Tier>> tiers, std::uint64_t queue_bytes);
  ~TierStack();  // what is queued is stored first
  TierStack(const TierStack&) = delete;
  TierStack& operator=(const TierStack&) = delete;

  void store(const TierKey& key, std::vector<std::byte> value);
  // How many of the keys, from the first on, are there without a gap. `near_only`: in the queue or the nearest tier.
  std::size_t find(std::span<const TierKey> keys, bool near_only);
  // Entries from the first on, until one is missing. `places` (may be null) is given each one's tier, 0 the nearest.
  std::vector<std::vector<std::byte>> load(std::span<const TierKey> keys, bool near_only, std::vector<std::size_t>* places);
  // Brings entries to the nearest tier, in the background. Behind kMostPrefetches others it would come too late: it is dropped.
  static constexpr std::size_t kMostPrefetches = 64;
  void prefetch(std::vector<TierKey> keys);
  // Returns when everything queued before has been done.
  void drain();
  void clear(std::optional<std::size_t> tier = std::nullopt);  // one, or all; what was queued before is stored first
  std::size_t size() const { return tiers_.size(); }

  // Seconds that loading `bytes` would take by what the tiers' hits took so far; 0: nothing is known yet.
  double load_seconds(std::uint64_t bytes) const;
  void count_declined(std::uint64_t entries);
  TierStackStats stats() const;

 private:
  struct Store {
    TierKey key;
    std::shared_ptr<const std::vector<std::byte>> value;
  };
  struct Prefetch {
    std::vector<TierKey> keys;
  };
  using Job = std::variant<Store, Prefetch>;

  void work();
  void carry_out(const Job& job);
  void push(Job job, std::unique_lock<std::mutex>& lock);
  void bring_near(std::size_t from, const TierKey& key, std::span<const std::byte> value);
  std::shared_ptr<const std::vector<std::byte>> queued(const TierKey& key) const;

  std::vector<std::unique_ptr<Tier>> tiers_;
  const std::uint64_t queue_bytes_;

  mutable std::mutex mutex_;
  std::condition_variable work_, idle_;
  std::deque<Job> jobs_;
  std::unordered_map<TierKey, std::shared_ptr<const std::vector<std::byte>>, TierKeyHash> waiting_;  // of jobs_ and `busy_`
  std::size_t waiting_prefetches_ = 0;
  std::uint64_t waiting_bytes_ = 0, pushed_ = 0, done_ = 0;
  std::uint64_t dropped_ = 0, declined_ = 0;
  std::atomic<std::uint64_t> failed_jobs_{0};
  bool stop_ = false;
  std::thread worker_;  // last: it uses all of the above
};

}  // namespace kvant
