// One sequence being read and written: with a cache only fresh tokens are computed, without one all of them every time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "llama.hpp"

namespace kvant::engine {

class Session {
 public:
  // `cached` says whether `attention` keeps what it was given; `batch` is the most tokens of one step then, `layers`
  // how many of the model's layers run (0: all), `slot` which of the attention's sequences it is.
  Session(Llama& model, Attention& attention, bool cached, uint32_t batch = 512, uint32_t layers = 0, uint32_t slot = 0)
      : model_(model), attention_(attention), cached_(cached), batch_(batch), layers_(layers), slot_(slot) {}

  // Appends the tokens; `logits` gets those after the last one.
  Outcome<void> feed(std::span<const uint32_t> tokens, std::vector<float>& logits);

  uint32_t length() const { return static_cast<uint32_t>(history_.size()); }
  // Starts again from nothing; the caller empties the cache.
  void reset() { history_.clear(); }
  // Goes on behind tokens that the cache holds already.
  void resume(std::span<const uint32_t> tokens) { history_.assign(tokens.begin(), tokens.end()); }
  // Forgets the tokens from `tokens` on; the caller truncates the cache.
  void truncate(uint32_t tokens) { history_.resize(std::min<size_t>(history_.size(), tokens)); }

 private:
  Llama& model_;
  Attention& attention_;
  bool cached_;
  uint32_t batch_;
  uint32_t layers_;
  uint32_t slot_;
  std::vector<uint32_t> history_;
};

}  // namespace kvant::engine
