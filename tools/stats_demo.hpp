// A workload to watch: conversations that share system prompts, on a small cache with a prefix cache, with random K, V
// and Q.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "library.hpp"
#include "outcome.hpp"

namespace kvant::tools {

class StatsDemo {
 public:
  // Of equal seeds the requests are equal.
  static Outcome<std::unique_ptr<StatsDemo>> open(std::shared_ptr<Device> device, uint32_t seed);
  ~StatsDemo();
  StatsDemo(const StatsDemo&) = delete;
  StatsDemo& operator=(const StatsDemo&) = delete;

  // One turn of one conversation: its history is looked up, what is missing is computed, a few tokens are answered.
  Outcome<void> turn();
  kvant_cache* cache() const { return cache_; }
  uint64_t turns() const { return turns_; }

 private:
  struct Conversation {
    std::vector<int32_t> tokens;
    uint32_t turns = 0;
  };

  explicit StatsDemo(std::shared_ptr<Device> device, uint32_t seed) : device_(std::move(device)), random_(seed) {}
  Outcome<void> create_cache();
  void begin(Conversation& conversation);
  // `count` tokens of `tokens` from `begin` on, one query at their end, in all layers.
  Outcome<void> step(kvant_sequence sequence, const std::vector<int32_t>& tokens, uint64_t begin);
  Outcome<void> close_oldest();
  uint32_t below(uint32_t end) { return std::uniform_int_distribution<uint32_t>(0, end - 1)(random_); }
  void append_random(std::vector<int32_t>& tokens, uint32_t count);

  std::shared_ptr<Device> device_;
  kvant_cache* cache_ = nullptr;
  std::mt19937 random_;
  std::vector<std::vector<int32_t>> system_prompts_;
  std::vector<Conversation> conversations_;
  std::deque<kvant_sequence> live_;  // sequences of the latest turns, the oldest first
  std::vector<float> floats_;        // what K, V and Q are taken from
  uint64_t turns_ = 0;
};

}  // namespace kvant::tools
