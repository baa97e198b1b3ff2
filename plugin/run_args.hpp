// The arguments of step_run, checked against the step and turned into the core's RunArgs.
#pragma once

#include <vector>

#include "objects.hpp"
#include "tensors.hpp"

namespace kvant::abi {

struct RunInput {
  RunArgs run;                         // tensors are filled in by make_views
  CheckedTensor k, v, q, out, lse;
};

Result<RunInput> read_run_args(const kvant_run_args* args, const StepObject& step, std::uint32_t layer);

// The last part: wraps buffers for the executor. Nothing can be refused on the caller's account any more.
Status make_views(RunInput& input, Executor& executor, std::vector<BufferId>& imports);

}  // namespace kvant::abi
