// MUL_MAT by what its hint says is a Hadamard matrix: a fast transform of rows, through the kernel `hadamard`. No other matrix is ever
// multiplied here, so that no weights are placed on this device.
#include <bit>
#include <cmath>

#include "operations.hpp"
#include "params/grids.h"
#include "params/strided.h"

namespace kvant::ggml {

namespace {

constexpr std::int64_t kMaxRow = 512, kMaxElements = std::int64_t{1} << 31;

}  // namespace

bool supports_hadamard(const ggml_tensor* op, const ExecutorLimits& limits) {
  const ggml_tensor *matrix = op->src[0], *rows = op->src[1];
  if (op->op_params[1] != GGML_HINT_SRC0_IS_HADAMARD || matrix == nullptr || rows == nullptr) return false;
  const std::int64_t n = rows->ne[0];
  if (n <= 0 || n > kMaxRow || !std::has_single_bit(static_cast<std::uint64_t>(n))) return false;
  if (matrix->ne[0] != n || matrix->ne[1] != n) return false;
  if (rows->type != GGML_TYPE_F32 && rows->type != GGML_TYPE_F16) return false;
  if (op->type != GGML_TYPE_F32 || !ggml_are_same_shape(rows, op)) return false;
  for (const ggml_tensor* side : {rows, op}) {
    if (!rows_contiguous(side) || ggml_nbytes(side) > bindable_bytes(limits)) return false;
    if (ggml_nelements(side) > kMaxElements) return false;
  }
  return true;
}

Status record_hadamard(Work& work, const ggml_tensor* node) {
  const ggml_tensor* s = node->src[1];
  if (ggml_nelements(node) == 0) return {};
  const Window source = work.window(s);
  const Window destination = work.window(node);
  const auto n = u32(s->ne[0]);
  params::HadamardParams p{};
  p.rows = u32(ggml_nrows(s));
  p.ne1 = u32(s->ne[1]);
  p.ne2 = u32(s->ne[2]);
  p.src_offset = source.skipped;
  p.dst_offset = destination.skipped;
  set_strides(p, s, node);
  p.scale = 1.0f / std::sqrt(static_cast<float>(n));
  // Of any device a workgroup has the 64 invocations that rows of 512 take.
  constexpr std::uint32_t kLocal = 64;
  Dispatch& dispatch = work.add(KernelId::hadamard, "hadamard", p, true);
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = kLocal;
  dispatch.spec[KVANT_SPEC_FORMAT_K] = u32(*format_of(s->type));
  dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = n;
  dispatch.bindings[0] = source.range;
  dispatch.bindings[1] = destination.range;
  dispatch.groups = params::hadamard_grid(static_cast<std::uint64_t>(ggml_nelements(s)), kLocal);
  return {};
}

}  // namespace kvant::ggml
