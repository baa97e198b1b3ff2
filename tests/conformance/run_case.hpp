// How a case of each operation is run. Each function makes the inputs, runs device and reference, compares, and proves that
// the comparison sees a fault (the negative control).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "backend.hpp"
#include "cases.hpp"
#include "result.hpp"
#include "workbench.hpp"

namespace kvant::conformance {

// The device once more, opened with its own pipeline-cache folder; null where there are no pipelines.
using Reopen = std::function<Result<std::unique_ptr<DeviceContext>>(const std::string& pipeline_cache_folder)>;

struct RunContext {
  Executor& device;
  std::uint64_t seed = 1;
  Reopen reopen = nullptr;
};

CaseResult run_append_case(const RunContext& context, const Case& c);
CaseResult run_read_case(const RunContext& context, const Case& c);
CaseResult run_copy_case(const RunContext& context, const Case& c);
CaseResult run_convert_case(const RunContext& context, const Case& c);
CaseResult run_quantize_case(const RunContext& context, const Case& c);
CaseResult run_merge_case(const RunContext& context, const Case& c);
CaseResult run_attend_case(const RunContext& context, const Case& c);
CaseResult run_sequence_case(const RunContext& context, const Case& c);
CaseResult run_relation_case(const RunContext& context, const Case& c);
CaseResult run_gather_case(const RunContext& context, const Case& c);
CaseResult run_rotate_case(const RunContext& context, const Case& c);
CaseResult run_score_case(const RunContext& context, const Case& c);
CaseResult run_transfer_case(const RunContext& context, const Case& c);
CaseResult run_import_case(const RunContext& context, const Case& c);
CaseResult run_extract_case(const RunContext& context, const Case& c);
CaseResult run_rope_case(const RunContext& context, const Case& c);
CaseResult run_hadamard_case(const RunContext& context, const Case& c);
CaseResult run_means_case(const RunContext& context, const Case& c);

// ---- shared by them ----

// Runs a kernel on an executor and gives back its output buffers with guards; `mutate` asks for the case's deliberate fault.
using KernelRun = std::function<Result<std::vector<Bytes>>(Executor&, bool mutate)>;
// Device against CPU executor, byte by byte, guards included; the mutated reference and a flipped bit must be noticed.
CaseResult run_exact(const RunContext& context, const Case& c, const std::string& fault, const KernelRun& run);

CaseResult error_result(const Case& c, const Status& status, const char* where);
// Pass, quality_warning or fail by the figures.
void conclude(CaseResult& result);
// Marks the result as an error of the suite unless the check failed on corrupted data.
void require_caught(CaseResult& result, bool caught, const std::string& fault);

}  // namespace kvant::conformance
