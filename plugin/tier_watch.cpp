#include "tier_watch.hpp"

#include <utility>

#include "text.hpp"

namespace kvant::abi {
namespace {

// While one lives, this thread is inside a tier's function. They nest where functions of one device's tier call another device.
class Inside {
 public:
  Inside(const CallLock& lock, const Tier& tier) : lock_(lock), tier_(tier), outer_(std::exchange(innermost_, this)) {}
  ~Inside() { innermost_ = outer_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

  static const Tier* below(const CallLock& lock) {
    for (const Inside* inside = innermost_; inside != nullptr; inside = inside->outer_)
      if (&inside->lock_ == &lock) return &inside->tier_;
    return nullptr;
  }

 private:
  static thread_local const Inside* innermost_;
  const CallLock& lock_;
  const Tier& tier_;
  const Inside* const outer_;
};
thread_local const Inside* Inside::innermost_ = nullptr;

class WatchedTier final : public Tier {
 public:
  WatchedTier(std::unique_ptr<Tier> tier, const CallLock& lock) : tier_(std::move(tier)), lock_(lock) {}

  std::string_view name() const override { return tier_->name(); }
  bool put(const TierKey& key, std::span<const std::byte> value) override {
    const Inside inside(lock_, *tier_);
    return tier_->put(key, value);
  }
  std::vector<std::vector<std::byte>> get(std::span<const TierKey> keys) override {
    const Inside inside(lock_, *tier_);
    return tier_->get(keys);
  }
  std::vector<bool> contains(std::span<const TierKey> keys) override {
    const Inside inside(lock_, *tier_);
    return tier_->contains(keys);
  }
  void erase(const TierKey& key) override {
    const Inside inside(lock_, *tier_);
    tier_->erase(key);
  }
  void clear() override {
    const Inside inside(lock_, *tier_);
    tier_->clear();
  }
  TierStats stats() const override { return tier_->stats(); }

 private:
  const std::unique_ptr<Tier> tier_;
  const CallLock& lock_;
};

}  // namespace

Result<std::unique_ptr<Tier>> watch_tier(Result<std::unique_ptr<Tier>> tier, const CallLock& lock) {
  if (!tier.ok()) return tier.status();
  return std::unique_ptr<Tier>(std::make_unique<WatchedTier>(std::move(tier.value()), lock));
}

std::string tier_objection(const CallLock& lock) {
  const Tier* const tier = Inside::below(lock);
  if (tier == nullptr) return {};
  return text("the call came from a function of the custom tier \"", tier->name(),
              "\" of the same device; tier functions must not call back");
}

}  // namespace kvant::abi
