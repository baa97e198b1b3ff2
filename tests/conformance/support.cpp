#include "support.hpp"

#include <utility>

#include "attend_configs.hpp"
#include "tuning.hpp"
#include "tuning_matrix.hpp"

namespace kvant::conformance {

std::vector<KernelId> kernels_of(const Case& c) {
  switch (c.op) {
    case Op::append: return {KernelId::append};
    case Op::read: return {KernelId::read};
    case Op::copy: return {KernelId::copy};
    case Op::convert: return {KernelId::convert};
    case Op::quantize: return {KernelId::append, KernelId::read};
    case Op::merge: return {KernelId::attend_merge};
    case Op::attend:
    case Op::relation: return {KernelId::append, c.config.kernel, KernelId::attend_merge};
    case Op::sequence: return {KernelId::append, KernelId::read, KernelId::copy, KernelId::convert};
    case Op::gather: return {KernelId::gather};
    case Op::rotate: return {KernelId::rotate};
    case Op::score: return {KernelId::append, c.config.kernel, KernelId::attend_merge, KernelId::score};
    case Op::transfer: return {KernelId::transfer};
    case Op::import: return {KernelId::import};
    case Op::extract: return {KernelId::extract};
    case Op::rope: return {KernelId::rope};
    case Op::hadamard: return {KernelId::hadamard};
    case Op::means: return {KernelId::means};
    case Op::count: break;
  }
  return {};
}

std::string missing_for(const Case& c, const DevicePlan& plan) {
  static constexpr std::pair<std::uint32_t, const char*> kNeeds[] = {{kernel_needs_subgroup, "subgroup operations"},
                                                                     {kernel_needs_fp16, "fp16 arithmetic"},
                                                                     {kernel_needs_int_dot, "integer dot product"},
                                                                     {kernel_needs_coopmat, "cooperative matrices"},
                                                                     {kernel_needs_coopmat2, "cooperative matrices 2"}};
  for (const KernelId id : kernels_of(c)) {
    const KernelInfo& info = kernel_info(id);
    if (info.spirv.empty()) return "module " + std::string(info.name) + " is not in this build";
    for (const auto& [bit, name] : kNeeds)
      if ((info.needs & ~satisfied_needs(plan.caps) & bit) != 0) return name;
  }
  const bool forced = c.op == Op::attend || c.op == Op::relation || c.op == Op::score;
  if (forced && !attend_config_valid(c.config, attend_shape(c), plan)) {
    if (c.config.subgroup_size != 0 && c.config.subgroup_size != plan.subgroup_size)
      return "subgroup size " + std::to_string(c.config.subgroup_size);
    const MatrixShape product = matrix_shape_of(c.config);
    if (uses_matrices(c.config.kernel) && !has_matrix_shape(plan.snapshot, product))
      return "matrices of " + std::to_string(product.m) + "x" + std::to_string(product.n) + "x" + std::to_string(product.k);
    return "limits for config " + config_name(c.config) + " (invocations, shared memory)";
  }
  return "";
}

}  // namespace kvant::conformance
