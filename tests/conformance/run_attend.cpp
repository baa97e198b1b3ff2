// Runs an attention case: the same plan on the device and on the CPU executor, both against the oracle, and a mutated CPU
// executor as the negative control.
#include <algorithm>
#include <array>

#include "attention_features.hpp"
#include "attention_run.hpp"
#include "cpu_executor.hpp"

namespace kvant::conformance {

namespace {

using reference::Mutation;

const char* mutation_name(Mutation mutation) {
  switch (mutation) {
    case Mutation::drop_token: return "heaviest token dropped";
    case Mutation::drop_half: return "older half of the keys ignored";
    case Mutation::swap_heads: return "heads swapped";
    case Mutation::page_entry: return "page table off by one";
    case Mutation::scale: return "scale of one row changed";
    case Mutation::scales: return "scale of every row changed";
    default: return "none";
  }
}

// Faults that must show in this case's output. Narrow arithmetic needs a fault larger than its own rounding.
std::vector<Mutation> visible_mutations(const Case& c, const AttentionInputs& in) {
  std::vector<Mutation> list;
  if (c.data == DataClass::zeros) return list;
  const bool random = c.data == DataClass::normal || c.data == DataClass::uniform || c.data == DataClass::outlier ||
                      c.data == DataClass::huge;
  const bool plain = (kernel_info(c.config.kernel).needs & (kernel_needs_fp16 | kernel_needs_int_dot)) == 0;
  const bool narrow_out = c.out == IoType::bf16;
  if (c.data == DataClass::constant) return {plain && !narrow_out ? Mutation::scale : Mutation::scales};
  if (random && (c.kv_heads > 1 || c.length >= 15)) list.push_back(Mutation::swap_heads);
  if (random && in.pages[0].size() >= 2 && c.rule == MaskRule::causal && c.window == 0 && plain && !narrow_out && !c.holes &&
      in.pages_per_slab == 0)
    list.push_back(Mutation::page_entry);
  if (plain && !narrow_out)
    list.push_back(Mutation::drop_token);
  else if (list.empty())  // the means of centred keys are large beside one-hot rows: their rounding may hide half of the keys
    list.push_back(c.data == DataClass::one_hot && c.centre_k ? Mutation::scales : Mutation::drop_half);
  return list;
}

}  // namespace

CaseResult run_attend_case(const RunContext& context, const Case& c) {
  CaseResult result;
  result.name = c.name;
  result.check = "reduction";
  const AttentionInputs inputs = make_attention_inputs(context.seed, c);
  const reference::DenseResult truth = attention_truth(c, inputs);

  auto actual = run_attention(context.device, c, inputs, &c.config);
  if (!actual.ok()) return error_result(c, actual.status(), "device");
  result.kernel = actual->kernel;
  result.spec = actual->spec;
  reference::CpuExecutor cpu;
  cpu.set_limits(context.device.limits());
  auto expected = run_attention(cpu, c, inputs, &c.config);
  if (!expected.ok()) return error_result(c, expected.status(), "CPU executor");

  result.figures = check_attention(c, inputs, truth, actual.value());
  conclude(result);
  const Comparison reference = check_attention(c, inputs, truth, expected.value());
  if (!reference.equal) {
    // The plan is shared: where both are wrong it is the planner, where only the CPU executor is, the suite.
    result.status = result.status == CaseStatus::fail ? CaseStatus::fail : CaseStatus::internal_error;
    result.message = "the plan on the CPU executor is outside the bound: " + reference.message;
    return result;
  }
  if (result.figures.reference_is_zero && c.data != DataClass::zeros) {
    result.status = CaseStatus::internal_error;
    result.message = "the expected result is all zeros, which this case does not declare";
    return result;
  }

  const auto mutations = visible_mutations(c, inputs);
  if (!mutations.empty()) {
    const Mutation mutation = mutations[hash_text(c.name) % mutations.size()];
    cpu.set_mutation(mutation);
    auto mutated = run_attention(cpu, c, inputs, &c.config);
    if (!mutated.ok()) return error_result(c, mutated.status(), "mutated CPU executor");
    require_caught(result, !check_attention(c, inputs, truth, mutated.value()).equal, mutation_name(mutation));
  }
  if (mutations.empty()) {  // V is zero: whatever the weights, so is the result
    AttentionOutput other = actual.value();
    const TensorLayout layout = out_layout(c, inputs);
    const std::size_t first = kGuardBytes + std::size_t{layout.offset} * layout.element_bytes();
    other.out[first + layout.element_bytes() - 1] ^= std::byte{0x40};
    require_caught(result, !check_attention(c, inputs, truth, other).equal, "one element changed");
  }
  AttentionOutput overrun = actual.value();
  overrun.out.back() ^= std::byte{1};
  require_caught(result, !check_attention(c, inputs, truth, overrun).equal, "write behind the tensor");
  for (const Feature feature : visible_features(c, inputs, truth))
    result.control += ", no " + std::string(feature_name(feature));
  return result;
}

}  // namespace kvant::conformance
