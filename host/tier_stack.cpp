#include "tier_stack.hpp"

#include <algorithm>
#include <exception>
#include <utility>

namespace kvant {

TierStack::TierStack(std::vector<std::unique_ptr<Tier>> tiers, std::uint64_t queue_bytes)
    : tiers_(std::move(tiers)), queue_bytes_(queue_bytes), worker_([this] { work(); }) {}

TierStack::~TierStack() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  worker_.join();
}

void TierStack::push(Job job, std::unique_lock<std::mutex>& lock) {
  jobs_.push_back(std::move(job));
  ++pushed_;
  lock.unlock();
  work_.notify_one();
}

void TierStack::store(const TierKey& key, std::vector<std::byte> value) {
  std::unique_lock lock(mutex_);
  if (waiting_.contains(key)) return;
  if (waiting_bytes_ + value.size() > queue_bytes_) {
    ++dropped_;
    return;
  }
  waiting_bytes_ += value.size();
  auto shared = std::make_shared<const std::vector<std::byte>>(std::move(value));
  waiting_.emplace(key, shared);
  push(Store{key, std::move(shared)}, lock);
}

void TierStack::prefetch(std::vector<TierKey> keys) {
  if (keys.empty() || tiers_.size() < 2) return;  // there is nothing nearer to bring them to
  std::unique_lock lock(mutex_);
  if (waiting_prefetches_ == kMostPrefetches) return;
  ++waiting_prefetches_;
  push(Prefetch{std::move(keys)}, lock);
}

void TierStack::bring_near(std::size_t from, const TierKey& key, std::span<const std::byte> value) {
  for (std::size_t t = 0; t < from; ++t) tiers_[t]->put(key, value);
}

void TierStack::carry_out(const Job& job) {
  if (const Store* store = std::get_if<Store>(&job)) {
    for (const std::unique_ptr<Tier>& tier : tiers_) tier->put(store->key, *store->value);
  } else {
    std::vector<TierKey> missing;
    const std::vector<TierKey>& keys = std::get<Prefetch>(job).keys;
    const std::vector<bool> near = tiers_.front()->contains(keys);
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (!near[i]) missing.push_back(keys[i]);
    for (std::size_t t = 1; t < tiers_.size() && !missing.empty(); ++t) {
      const std::vector<std::vector<std::byte>> found = tiers_[t]->get(missing);
      std::vector<TierKey> still;
      for (std::size_t i = 0; i < missing.size(); ++i) {
        if (found[i].empty()) {
          still.push_back(missing[i]);
        } else {
          bring_near(t, missing[i], found[i]);
        }
      }
      missing = std::move(still);
    }
  }
}

void TierStack::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    // Memory may run out in a tier: then the job is lost, which costs a miss, not the process.
    try {
      carry_out(job);
    } catch (const std::exception&) {
      failed_jobs_.fetch_add(1, std::memory_order_relaxed);
    }
    lock.lock();
    if (const Store* store = std::get_if<Store>(&job)) {
      waiting_bytes_ -= store->value->size();
      waiting_.erase(store->key);
    } else {
      --waiting_prefetches_;
    }
    ++done_;
    idle_.notify_all();
  }
}

std::shared_ptr<const std::vector<std::byte>> TierStack::queued(const TierKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = waiting_.find(key);
  return found == waiting_.end() ? nullptr : found->second;
}

std::size_t TierStack::find(std::span<const TierKey> keys, bool near_only) {
  std::vector<bool> there(keys.size(), false);
  for (std::size_t i = 0; i < keys.size(); ++i) there[i] = queued(keys[i]) != nullptr;
  const std::size_t tiers = near_only ? std::min<std::size_t>(1, tiers_.size()) : tiers_.size();
  for (std::size_t t = 0; t < tiers; ++t) {
    if (std::find(there.begin(), there.end(), false) == there.end()) break;
    const std::vector<bool> held = tiers_[t]->contains(keys);
    for (std::size_t i = 0; i < keys.size(); ++i) there[i] = there[i] || held[i];
  }
  return static_cast<std::size_t>(std::find(there.begin(), there.end(), false) - there.begin());
}

std::vector<std::vector<std::byte>> TierStack::load(std::span<const TierKey> keys, bool near_only,
                                                   std::vector<std::size_t>* places) {
  std::vector<std::vector<std::byte>> values(keys.size());
  std::vector<std::size_t> from(keys.size(), 0);
  for (std::size_t i = 0; i < keys.size(); ++i)
    if (const auto value = queued(keys[i])) values[i] = *value;
  const std::size_t tiers = near_only ? std::min<std::size_t>(1, tiers_.size()) : tiers_.size();
  for (std::size_t t = 0; t < tiers; ++t) {
    std::vector<TierKey> missing;
    std::vector<std::size_t> slots;
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (values[i].empty()) {
        missing.push_back(keys[i]);
        slots.push_back(i);
      }
    if (missing.empty()) break;
    std::vector<std::vector<std::byte>> found = tiers_[t]->get(missing);
    for (std::size_t i = 0; i < missing.size(); ++i) {
      if (found[i].empty()) continue;
      bring_near(t, missing[i], found[i]);
      values[slots[i]] = std::move(found[i]);
      from[slots[i]] = t;
    }
  }
  const auto gap = std::find_if(values.begin(), values.end(), [](const auto& value) { return value.empty(); });
  values.erase(gap, values.end());
  from.resize(values.size());
  if (places != nullptr) *places = std::move(from);
  return values;
}

void TierStack::drain() {
  std::unique_lock lock(mutex_);
  const std::uint64_t wanted = pushed_;
  idle_.wait(lock, [&] { return done_ >= wanted; });
}

void TierStack::clear(std::optional<std::size_t> tier) {
  drain();
  for (std::size_t t = 0; t < tiers_.size(); ++t)
    if (t == tier.value_or(t)) tiers_[t]->clear();
}

double TierStack::load_seconds(std::uint64_t bytes) const {
  // Few hits say little: the first ones pay for connections and cold files.
  constexpr std::uint64_t kEnough = 8;
  double seconds = 0;
  std::uint64_t read = 0, hits = 0;
  for (const std::unique_ptr<Tier>& tier : tiers_) {
    const TierStats stats = tier->stats();
    seconds += stats.read_seconds;
    read += stats.bytes_read;
    hits += stats.hits;
  }
  return hits < kEnough || read == 0 ? 0 : seconds * static_cast<double>(bytes) / static_cast<double>(read);
}

void TierStack::count_declined(std::uint64_t entries) {
  const std::lock_guard lock(mutex_);
  declined_ += entries;
}

TierStackStats TierStack::stats() const {
  TierStackStats stats;
  for (const std::unique_ptr<Tier>& tier : tiers_) stats.tiers.push_back({std::string(tier->name()), tier->stats()});
  const std::lock_guard lock(mutex_);
  stats.dropped_stores = dropped_ + failed_jobs_.load(std::memory_order_relaxed);
  stats.declined_loads = declined_;
  stats.queued_bytes = waiting_bytes_;
  return stats;
}

}  // namespace kvant
