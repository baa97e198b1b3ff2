// LruIndex: entries of a tier by key, with their sizes, in the order of their last use. Thread rule: one thread at a
// time.
#pragma once

#include <list>
#include <optional>
#include <unordered_map>
#include <utility>

#include "tier.hpp"

namespace kvant {

template <typename Value>
class LruIndex {
 public:
  struct Entry {
    TierKey key;
    std::uint64_t bytes = 0;
    Value value;
  };

  // The entry, which is now the last to leave; null: none.
  Entry* touch(const TierKey& key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return nullptr;
    order_.splice(order_.end(), order_, found->second);
    return &*found->second;
  }

  bool contains(const TierKey& key) const { return entries_.count(key) != 0; }

  // Replaces what the key had. The entry is the last to leave.
  void insert(const TierKey& key, std::uint64_t bytes, Value value) {
    erase(key);
    order_.push_back({key, bytes, std::move(value)});
    entries_.emplace(key, std::prev(order_.end()));
    bytes_ += bytes;
  }

  bool erase(const TierKey& key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return false;
    bytes_ -= found->second->bytes;
    order_.erase(found->second);
    entries_.erase(found);
    return true;
  }

  // Takes out the entry that was not used for longest.
  std::optional<Entry> pop() {
    if (order_.empty()) return std::nullopt;
    Entry entry = std::move(order_.front());
    order_.pop_front();
    entries_.erase(entry.key);
    bytes_ -= entry.bytes;
    return entry;
  }

  void clear() {
    order_.clear();
    entries_.clear();
    bytes_ = 0;
  }

  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t size() const { return entries_.size(); }

 private:
  std::list<Entry> order_;  // the next to leave first
  std::unordered_map<TierKey, typename std::list<Entry>::iterator, TierKeyHash> entries_;
  std::uint64_t bytes_ = 0;
};

}  // namespace kvant
