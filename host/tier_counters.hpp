// TierCounters: what a tier did, counted from any thread.
#pragma once

#include <chrono>
#include <mutex>

#include "tier.hpp"

namespace kvant {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

class TierCounters {
 public:
  // Each put ends in one of these and returns it. A refreshed entry writes 0 bytes.
  bool stored(std::uint64_t bytes_written, double seconds) {
    const std::lock_guard lock(mutex_);
    ++stats_.puts;
    stats_.bytes_written += bytes_written;
    stats_.write_seconds += seconds;
    return true;
  }
  bool rejected(bool medium_failed) {
    const std::lock_guard lock(mutex_);
    ++stats_.puts, ++stats_.rejected;
    if (medium_failed) ++stats_.errors;
    return false;
  }

  // Each key of a get ends in one of these.
  void hit(std::uint64_t bytes_read, double seconds) {
    const std::lock_guard lock(mutex_);
    ++stats_.gets, ++stats_.hits;
    stats_.bytes_read += bytes_read;
    stats_.read_seconds += seconds;
  }
  enum class Miss { absent, corrupt, failed };
  void missed(Miss why) {
    const std::lock_guard lock(mutex_);
    ++stats_.gets;
    if (why == Miss::corrupt) ++stats_.corrupt;
    if (why == Miss::failed) ++stats_.errors;
  }

  void evicted() {
    const std::lock_guard lock(mutex_);
    ++stats_.evictions;
  }

  TierStats snapshot() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  mutable std::mutex mutex_;
  TierStats stats_;
};

}  // namespace kvant
