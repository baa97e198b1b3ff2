// Cuts what is fed into batches.
#include "session.hpp"

#include <algorithm>

namespace kvant::engine {

Outcome<void> Session::feed(std::span<const uint32_t> tokens, std::vector<float>& logits) {
  if (tokens.empty()) {
    return Failure{"no token to feed"};
  }
  if (!cached_) {
    history_.insert(history_.end(), tokens.begin(), tokens.end());
    Batch batch;
    batch.layers = layers_;
    batch.entries = {{slot_, 0, length()}};
    batch.tokens = history_;
    batch.logit_rows = {length() - 1};
    return model_.forward(batch, attention_, logits);
  }
  for (size_t begin = 0; begin < tokens.size(); begin += batch_) {
    const auto part = tokens.subspan(begin, std::min<size_t>(batch_, tokens.size() - begin));
    Batch batch;
    batch.layers = layers_;
    batch.entries = {{slot_, length(), static_cast<uint32_t>(part.size())}};
    batch.entries[0].tokens = part;
    batch.tokens.assign(part.begin(), part.end());
    if (begin + part.size() == tokens.size()) {
      batch.logit_rows = {static_cast<uint32_t>(part.size() - 1)};
    }
    KVANT_TRY(model_.forward(batch, attention_, logits));
    history_.insert(history_.end(), part.begin(), part.end());
  }
  return {};
}

}  // namespace kvant::engine
