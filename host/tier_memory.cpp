// The memory tier: values in this process, least recently used out first.
#include <mutex>
#include <utility>

#include "lru_index.hpp"
#include "tier.hpp"
#include "tier_counters.hpp"

namespace kvant {
namespace {

// About what the index and the allocator take for an entry beside its value.
constexpr std::uint64_t kEntryCost = 192;

class MemoryTier final : public Tier {
 public:
  explicit MemoryTier(std::uint64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}

  std::string_view name() const override { return "host"; }

  bool put(const TierKey& key, std::span<const std::byte> value) override {
    const Stopwatch watch;
    if (value.empty() || capacity_bytes_ < kEntryCost || value.size() > capacity_bytes_ - kEntryCost)
      return counters_.rejected(false);
    {
      const std::lock_guard lock(mutex_);
      if (index_.touch(key) != nullptr) return counters_.stored(0, watch.seconds());
    }
    // Copied without the lock: readers need not wait for it. Two threads that put one key both copy, and one copy
    // stays.
    auto copy = std::make_shared<const std::vector<std::byte>>(value.begin(), value.end());
    std::vector<Shared> leaving;  // freed without the lock, too
    {
      const std::lock_guard lock(mutex_);
      if (index_.touch(key) == nullptr) {
        const std::uint64_t cost = value.size() + kEntryCost;
        while (index_.bytes() > capacity_bytes_ - cost) {
          leaving.push_back(std::move(index_.pop()->value));
          counters_.evicted();
        }
        index_.insert(key, cost, std::move(copy));
      }
    }
    return counters_.stored(value.size(), watch.seconds());
  }

  std::vector<std::vector<std::byte>> get(std::span<const TierKey> keys) override {
    std::vector<std::vector<std::byte>> values(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const Stopwatch watch;
      const Shared held = find(keys[i]);
      if (held == nullptr) {
        counters_.missed(TierCounters::Miss::absent);
        continue;
      }
      values[i] = *held;
      counters_.hit(held->size(), watch.seconds());
    }
    return values;
  }

  std::vector<bool> contains(std::span<const TierKey> keys) override {
    const std::lock_guard lock(mutex_);
    std::vector<bool> found(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) found[i] = index_.contains(keys[i]);
    return found;
  }

  void erase(const TierKey& key) override {
    const std::lock_guard lock(mutex_);
    index_.erase(key);
  }

  void clear() override {
    const std::lock_guard lock(mutex_);
    index_.clear();
  }

  TierStats stats() const override {
    TierStats stats = counters_.snapshot();
    const std::lock_guard lock(mutex_);
    stats.entries = index_.size();
    stats.bytes = index_.bytes();
    stats.capacity_bytes = capacity_bytes_;
    return stats;
  }

 private:
  using Shared = std::shared_ptr<const std::vector<std::byte>>;

  Shared find(const TierKey& key) {
    const std::lock_guard lock(mutex_);
    const auto* entry = index_.touch(key);
    return entry == nullptr ? nullptr : entry->value;
  }

  const std::uint64_t capacity_bytes_;
  TierCounters counters_;
  mutable std::mutex mutex_;
  LruIndex<Shared> index_;
};

}  // namespace

std::unique_ptr<Tier> make_memory_tier(std::uint64_t capacity_bytes) {
  return std::make_unique<MemoryTier>(capacity_bytes);
}

}  // namespace kvant
