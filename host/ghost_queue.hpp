// GhostQueue: the fingerprints of the entries that left last, without their content; the oldest one makes room for a
// new one.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <utility>

namespace kvant {

class GhostQueue {
 public:
  explicit GhostQueue(std::uint64_t capacity_entries) : capacity_(capacity_entries) {}

  std::uint64_t size() const { return newest_.size(); }

  void add(std::uint64_t fingerprint) {
    newest_[fingerprint] = ++added_;
    queue_.emplace_back(fingerprint, added_);
    while (queue_.size() > capacity_) drop_oldest();
  }

  // Whether it was there; it no longer is.
  bool take(std::uint64_t fingerprint) { return newest_.erase(fingerprint) > 0; }

 private:
  // A fingerprint that was taken, or added again since, leaves nothing but its place in the queue.
  void drop_oldest() {
    const auto [fingerprint, number] = queue_.front();
    queue_.pop_front();
    const auto found = newest_.find(fingerprint);
    if (found != newest_.end() && found->second == number) newest_.erase(found);
  }

  std::uint64_t capacity_;
  std::uint64_t added_ = 0;
  std::deque<std::pair<std::uint64_t, std::uint64_t>> queue_;  // fingerprint and its number
  std::unordered_map<std::uint64_t, std::uint64_t> newest_;    // fingerprint -> its last number
};

}  // namespace kvant
