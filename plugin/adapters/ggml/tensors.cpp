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

std::uint64_t offset_of(const ggml_tensor* tensor) {
  const ggml_backend_buffer_t buffer = buffer_of(tensor);
  const bool placed = buffer != nullptr && buffer->iface.get_base != nullptr;  // a probe's buffer is none
  return reinterpret_cast<std::uintptr_t>(tensor->data) - (placed ? reinterpret_cast<std::uintptr_t>(buffer->iface.get_base(buffer)) : kBase);
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
