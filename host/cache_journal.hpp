// CacheJournal: what a cache writes down about itself while it works: events, latencies, tokens and error samples by layer.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "event_ring.hpp"
#include "prefix_key.hpp"
#include "stats.hpp"

namespace kvant {

struct LayerJournal {
  std::uint64_t appended_tokens = 0;
  LookupCounters lookups;
  std::array<QuantizationError, 2> errors;  // by Side
};

class CacheJournal {
 public:
  CacheJournal(std::size_t layer_count, std::size_t events) : layers(layer_count), events_(events) {}

  void event(EventKind kind, std::uint64_t now_ms, std::uint64_t a, std::uint64_t b = 0, std::uint64_t sequence = 0) {
    events_.add(kind, now_ms, a, b, sequence);
  }
  static std::uint64_t short_key(const PrefixKey& key) {
    std::uint64_t value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | std::to_integer<std::uint64_t>(key.bytes[static_cast<std::size_t>(i)]);
    return value;
  }
  const EventRing& events() const { return events_; }

  // Adds the time from its making to its end to the operation's histogram.
  class Timer {
   public:
    Timer(CacheJournal& journal, Operation operation) : histogram_(journal.latency[static_cast<std::size_t>(operation)]) {}
    ~Timer() {
      histogram_.add(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count());
    }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

   private:
    LatencyHistogram& histogram_;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  };

  std::vector<LayerJournal> layers;
  std::array<LatencyHistogram, kOperations> latency;

  // A token of every `tokens` appended ones is compared with what is stored of it; 0: none.
  void sample_every(std::uint64_t tokens) {
    sample_every_ = tokens;
    until_sample_ = 0;
  }
  // Of the next `fresh` tokens the first one to be compared; none: UINT64_MAX.
  std::uint64_t choose_sample(std::uint64_t fresh) {
    if (sample_every_ == 0 || fresh == 0) return UINT64_MAX;
    const std::uint64_t chosen = until_sample_ < fresh ? until_sample_ : UINT64_MAX;
    // The distance is kept over the end of a step, however many of its tokens would have been due.
    until_sample_ = chosen == UINT64_MAX ? until_sample_ - fresh
                                         : sample_every_ - 1 - (fresh - 1 - chosen) % sample_every_;
    return chosen;
  }

 private:
  std::uint64_t sample_every_ = 0, until_sample_ = 0;
  EventRing events_;
};

}  // namespace kvant
