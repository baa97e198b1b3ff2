#include "run_case.hpp"

#include "cpu_executor.hpp"
#include "probe_executor.hpp"

namespace kvant::conformance {

CaseResult error_result(const Case& c, const Status& status, const char* where) {
  CaseResult result;
  result.name = c.name;
  result.status = CaseStatus::fail;
  if (status.code() == StatusCode::resource_exhausted) result.status = CaseStatus::resource_error;
  if (status.code() == StatusCode::data_loss) result.status = CaseStatus::device_lost;
  result.message = std::string(where) + ": " + status.message();
  return result;
}

void conclude(CaseResult& result) {
  if (!result.figures.equal) {
    result.status = CaseStatus::fail;
    result.message = result.figures.message + " (" + std::to_string(result.figures.wrong) + " of " +
                     std::to_string(result.figures.elements) + " are wrong)";
  } else if (result.check == "reduction" && result.figures.fraction > 0.75) {
    result.status = CaseStatus::quality_warning;
  }
}

void require_caught(CaseResult& result, bool caught, const std::string& fault) {
  if (result.status == CaseStatus::fail) return;  // what differs already cannot be told from the fault
  if (!caught) {
    result.status = CaseStatus::internal_error;
    result.message = "checker blind: it accepts a result with this fault: " + fault;
  }
  result.control += (result.control.empty() ? "" : ", ") + fault;
}

CaseResult run_exact(const RunContext& context, const Case& c, const std::string& fault, const KernelRun& run) {
  CaseResult result;
  result.name = c.name;
  result.check = "exact";
  ProbeExecutor device(context.device);
  auto actual = run(device, false);
  if (!actual.ok()) return error_result(c, actual.status(), "device");
  result.kernel = std::string(kernel_info(device.last_dispatch().kernel).name);
  result.spec.assign(device.last_dispatch().spec.begin(), device.last_dispatch().spec.end());
  reference::CpuExecutor cpu;
  auto expected = run(cpu, false);
  if (!expected.ok()) return error_result(c, expected.status(), "reference");
  auto mutated = run(cpu, true);
  if (!mutated.ok()) return error_result(c, mutated.status(), "mutated reference");
  bool fault_seen = false;
  for (std::size_t i = 0; i < expected.value().size(); ++i) {
    join(result.figures, compare_bytes(actual.value()[i], expected.value()[i]), "output " + std::to_string(i));
    fault_seen |= !compare_bytes(actual.value()[i], mutated.value()[i]).equal;
  }
  conclude(result);
  require_caught(result, fault_seen, fault);
  Bytes flipped = actual.value()[0];
  flipped[flipped.size() / 2] ^= std::byte{1};
  require_caught(result, !compare_bytes(flipped, expected.value()[0]).equal, "flipped bit");
  return result;
}

}  // namespace kvant::conformance
