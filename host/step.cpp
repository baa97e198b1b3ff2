#include "step.hpp"

#include "cache_impl.hpp"

namespace kvant {

Step::~Step() {
  if (cache_ != nullptr) cache_->end_step();
}

void StepState::clear() {
  sequences.clear();
  taken.clear();
  tokens.clear();
  for (GroupTables& group : groups) group.batch.clear();
  variant_count = 0;
  appended.assign(appended.size(), false);
  fresh_tokens = 0;
  queries = 0;
  masked = false;
  sampled_token = UINT64_MAX;
}

}  // namespace kvant
