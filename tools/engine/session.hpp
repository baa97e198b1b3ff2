// One sequence being read and written: with a cache only fresh tokens are computed, without one all of them every time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "llama.hpp"

namespace kvant::engine {

class Session {
 public:
  // `cached` says whether `attention` keeps what it was given; `batch` is the most tokens of one step then.
  Session(Llama& model, Attention& attention, bool cached, uint32_t batch = 512)
      : model_(model), attention_(attention), cached_(cached), batch_(batch) {}

  // Appends the tokens; `logits` gets those after the last one.
  Outcome<void> feed(std::span<const uint32_t> tokens, std::vector<float>& logits);

  uint32_t length() const { return static_cast<uint32_t>(history_.size()); }
  // Starts again from nothing; the caller empties the cache.
  void reset() { history_.clear(); }

 private:
  Llama& model_;
  Attention& attention_;
  bool cached_;
  uint32_t batch_;
  std::vector<uint32_t> history_;
};

}  // namespace kvant::engine
