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
  for (WideTables& group : wide) {
    group.batch.clear();
    group.any = false;
  }
  wide_taken.clear();
  wide_begin.clear();
  stale_copies.clear();
  imported.assign(appended.size(), false);
  variant_count = 0;
  appended.assign(appended.size(), false);
  fresh_tokens = 0;
  queries = 0;
  masked = false;
  sampled_token = UINT64_MAX;
}

}  // namespace kvant
