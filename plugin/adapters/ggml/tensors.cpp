#include "tensors.hpp"

namespace kvant::ggml {

std::optional<FormatId> format_of(ggml_type type) {
  switch (type) {
    case GGML_TYPE_F32: return FormatId::f32;
    case GGML_TYPE_F16: return FormatId::f16;
    case GGML_TYPE_BF16: return FormatId::bf16;
    case GGML_TYPE_Q8_0: return FormatId::q8_0;
    case GGML_TYPE_Q4_0: return FormatId::q4_0;
    case GGML_TYPE_Q4_1: return FormatId::q4_1;
    case GGML_TYPE_Q5_0: return FormatId::q5_0;
    case GGML_TYPE_Q5_1: return FormatId::q5_1;
    case GGML_TYPE_IQ4_NL: return FormatId::iq4_nl;
    default: return std::nullopt;
  }
}

bool in_blocks(ggml_type type) {
  const auto format = format_of(type);
  return format && format_info(*format).canonical_block > 1;
}

static std::uint64_t block_of(const ggml_tensor* tensor) {
  const auto format = format_of(tensor->type);
  return format ? format_info(*format).canonical_block : 1;
}

static std::uint64_t block_bytes(const ggml_tensor* tensor) {
  const auto format = format_of(tensor->type);
  return format ? format_info(*format).canonical_bytes : tensor->type == GGML_TYPE_I64 ? 8 : 4;
}

std::uint64_t elements_of(const ggml_tensor* t) {
  return static_cast<std::uint64_t>(t->ne[0]) * static_cast<std::uint64_t>(t->ne[1]) * static_cast<std::uint64_t>(t->ne[2]) *
         static_cast<std::uint64_t>(t->ne[3]);
}

std::uint64_t extent_of(const ggml_tensor* t) {
  if (elements_of(t) == 0) return 0;
  std::uint64_t bytes = block_bytes(t) + (static_cast<std::uint64_t>(t->ne[0]) / block_of(t) - 1) * t->nb[0];
  for (int d = 1; d < GGML_MAX_DIMS; ++d) bytes += static_cast<std::uint64_t>(t->ne[d] - 1) * t->nb[d];
  return bytes;
}

bool rows_contiguous(const ggml_tensor* t) { return t->nb[0] == block_bytes(t); }

bool contiguous(const ggml_tensor* t) {
  std::uint64_t bytes = block_bytes(t);
  if (t->ne[0] != static_cast<std::int64_t>(block_of(t)) && t->nb[0] != bytes) return false;
  bytes *= static_cast<std::uint64_t>(t->ne[0]) / block_of(t);
  for (int d = 1; d < GGML_MAX_DIMS; ++d) {
    if (t->ne[d] != 1 && t->nb[d] != bytes) return false;
    bytes *= static_cast<std::uint64_t>(t->ne[d]);
  }
  return true;
}

bool is_view_op(ggml_op op) {
  switch (op) {
    case GGML_OP_NONE:
    case GGML_OP_VIEW:
    case GGML_OP_RESHAPE:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE: return true;
    default: return false;
  }
}

}  // namespace kvant::ggml
