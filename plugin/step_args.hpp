// The arguments of step_plan, checked and turned into the core's entries.
#pragma once

#include <string>
#include <vector>

#include "objects.hpp"

namespace kvant::abi {

// Fills cache.step_entries and cache.step_sequences, whose memory is that of the step before.
struct StepInput {
  std::uint64_t fresh_tokens = 0, queries = 0;
  std::string causal_objection;  // why no causal run fits; empty if one does
};

Result<StepInput> read_step_args(const kvant_step_args* args, CacheObject& cache);

}  // namespace kvant::abi
