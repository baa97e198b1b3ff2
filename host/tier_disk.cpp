// The disk tier: which entries a folder keeps, least recently used out first. The index is a hint: a file that another
// process removed is a miss, and one that it wrote is found.
#include <mutex>
#include <string>
#include <utility>

#include "disk_folder.hpp"
#include "lru_index.hpp"
#include "tier.hpp"
#include "tier_counters.hpp"
#include "tier_entry.hpp"

namespace kvant {
namespace {

class DiskTier final : public Tier {
 public:
  DiskTier(std::unique_ptr<DiskFolder> folder, std::uint64_t capacity_bytes)
      : folder_(std::move(folder)), capacity_bytes_(capacity_bytes) {
    for (const DiskFile& file : folder_->scan()) index_.insert(file.key, file.bytes, {});
    make_room(0);
  }

  std::string_view name() const override { return "disk"; }

  bool put(const TierKey& key, std::span<const std::byte> value) override {
    const Stopwatch watch;
    const std::uint64_t bytes = value.size() + kEntryHeaderBytes;
    if (value.empty() || value.size() > kMaxEntryBytes || (capacity_bytes_ != 0 && bytes > capacity_bytes_))
      return counters_.rejected(false);
    // One writer at a time: what one makes room for no other one takes.
    const std::lock_guard writer(write_mutex_);
    if (folder_->refresh(key, value.size())) {
      found(key, bytes);
      return counters_.stored(0, watch.seconds());
    }
    forget(key);
    make_room(bytes);
    if (!folder_->write(key, value)) return counters_.rejected(true);
    found(key, bytes);
    return counters_.stored(value.size(), watch.seconds());
  }

  std::vector<std::vector<std::byte>> get(std::span<const TierKey> keys) override {
    std::vector<std::vector<std::byte>> values(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const Stopwatch watch;
      switch (folder_->read(keys[i], values[i])) {
        case DiskRead::hit:
          found(keys[i], values[i].size() + kEntryHeaderBytes);
          counters_.hit(values[i].size(), watch.seconds());
          break;
        case DiskRead::absent:
          // What was just written by a put, after the look and before this, stays known.
          if (forget(keys[i]))
            if (const auto bytes = folder_->file_bytes(keys[i])) found(keys[i], *bytes);
          counters_.missed(TierCounters::Miss::absent);
          break;
        case DiskRead::corrupt:
          erase(keys[i]);
          counters_.missed(TierCounters::Miss::corrupt);
          break;
        case DiskRead::failed:
          counters_.missed(TierCounters::Miss::failed);
          break;
      }
    }
    return values;
  }

  std::vector<bool> contains(std::span<const TierKey> keys) override {
    std::vector<bool> there(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i)
      there[i] = is_indexed(keys[i]) || folder_->file_bytes(keys[i]).has_value();
    return there;
  }

  void erase(const TierKey& key) override {
    forget(key);
    folder_->remove(key);
  }

  void clear() override {
    const std::lock_guard writer(write_mutex_);
    for (const DiskFile& file : folder_->scan()) folder_->remove(file.key);
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
  struct Nothing {};

  bool is_indexed(const TierKey& key) const {
    const std::lock_guard lock(mutex_);
    return index_.contains(key);
  }

  // The file is there and was just used; it may be one of another process.
  void found(const TierKey& key, std::uint64_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      index_.insert(key, bytes, {});
    }
    make_room(0);
  }

  bool forget(const TierKey& key) {
    const std::lock_guard lock(mutex_);
    return index_.erase(key);
  }

  // Evicts until `bytes` more fit. Files are removed without the lock: should one of them be written anew meanwhile and
  // go with the old one, that is a miss.
  void make_room(std::uint64_t bytes) {
    if (capacity_bytes_ == 0) return;
    std::vector<TierKey> leaving;
    {
      const std::lock_guard lock(mutex_);
      while (index_.size() > 0 && index_.bytes() > capacity_bytes_ - bytes) leaving.push_back(index_.pop()->key);
    }
    for (const TierKey& key : leaving) {
      folder_->remove(key);
      counters_.evicted();
    }
  }

  const std::unique_ptr<DiskFolder> folder_;
  const std::uint64_t capacity_bytes_;
  TierCounters counters_;
  std::mutex write_mutex_;
  mutable std::mutex mutex_;  // of the index alone
  LruIndex<Nothing> index_;
};

}  // namespace

Result<std::unique_ptr<Tier>> make_disk_tier(const DiskTierSpec& spec) {
  if (spec.folder.empty())
    return Status(StatusCode::unavailable, "the folder of the disk tier is empty; expected a path");
  KVANT_ASSIGN(std::unique_ptr<DiskFolder> folder, DiskFolder::open(spec.folder));
  return std::unique_ptr<Tier>(std::make_unique<DiskTier>(std::move(folder), spec.capacity_bytes));
}

}  // namespace kvant
