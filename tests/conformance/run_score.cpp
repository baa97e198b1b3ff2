// Runs a score case: attention that counts masses, on the device and on the CPU executor, both against the oracle.
#include <cmath>

#include "attention_run.hpp"
#include "cpu_executor.hpp"

namespace kvant::conformance {

namespace {

Comparison check_masses(const Case& c, const reference::DenseResult& truth, const AttentionOutput& output) {
  // The cache gives means over a group's query heads, as f32.
  std::vector<double> expected, bound, actual(output.mass.begin(), output.mass.end());
  for (std::size_t s = 0; s < truth.mass.size(); ++s)
    for (std::uint32_t head = 0; head < c.kv_heads; ++head)
      for (std::size_t at = head; at < truth.mass[s].size(); at += c.kv_heads) {
        const bool gone = expected.size() < actual.size() && std::isnan(actual[expected.size()]);
        if (gone) actual[expected.size()] = 0.0;
        expected.push_back(gone ? 0.0 : truth.mass[s][at] / c.group);
        bound.push_back(truth.mass_bound[s][at] / c.group + expected.back() * 0x1p-24);
      }
  return compare_bounded(actual, expected, bound, expected, 1);
}

}  // namespace

CaseResult run_score_case(const RunContext& context, const Case& c) {
  CaseResult result;
  result.name = c.name;
  result.check = "reduction";
  const AttentionInputs inputs = make_attention_inputs(context.seed, c);
  const reference::DenseResult truth = attention_truth(c, inputs);
  auto actual = run_attention(context.device, c, inputs, &c.config);
  if (!actual.ok()) return error_result(c, actual.status(), "device");
  result.kernel = std::string(kernel_info(KernelId::score).name);
  result.spec = actual->spec;
  reference::CpuExecutor cpu;
  cpu.set_limits(context.device.limits());
  auto expected = run_attention(cpu, c, inputs, &c.config);
  if (!expected.ok()) return error_result(c, expected.status(), "CPU executor");

  result.figures = check_masses(c, truth, actual.value());
  conclude(result);
  const Comparison reference = check_masses(c, truth, expected.value());
  if (!reference.equal) {
    result.status = result.status == CaseStatus::fail ? CaseStatus::fail : CaseStatus::internal_error;
    result.message = "the masses of the CPU executor are outside the bound: " + reference.message;
    return result;
  }
  if (result.figures.reference_is_zero) {
    result.status = CaseStatus::internal_error;
    result.message = "no key is expected to have a mass";
    return result;
  }
  cpu.set_mutation(reference::Mutation::drop_token);
  auto mutated = run_attention(cpu, c, inputs, &c.config);
  if (!mutated.ok()) return error_result(c, mutated.status(), "mutated CPU executor");
  require_caught(result, !check_masses(c, truth, mutated.value()).equal, "heaviest token dropped");
  return result;
}

}  // namespace kvant::conformance
