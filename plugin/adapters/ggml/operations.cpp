#include "operations.hpp"

#include "buffers.hpp"

namespace kvant::ggml {

bool supports(const ggml_tensor* op, const ExecutorLimits& limits) {
  if (is_view_op(op->op)) return true;
  switch (op->op) {
    case GGML_OP_FLASH_ATTN_EXT: return supports_attention(op, limits);
    case GGML_OP_SET_ROWS:
    case GGML_OP_GET_ROWS:
    case GGML_OP_CPY:
    case GGML_OP_CONT:
    case GGML_OP_DUP: return supports_transfer(op, limits);
    default: return false;
  }
}

Status record(Work& work, const ggml_tensor* node) {
  switch (node->op) {
    case GGML_OP_FLASH_ATTN_EXT: return record_attention(work, node);
    case GGML_OP_SET_ROWS:
    case GGML_OP_GET_ROWS:
    case GGML_OP_CPY:
    case GGML_OP_CONT:
    case GGML_OP_DUP: return record_transfer(work, node);
    default: return {StatusCode::unimplemented, "not an operation of this backend"};
  }
}

BufferId buffer_id(const ggml_tensor* tensor) { return device_buffer(buffer_of(tensor)); }

}  // namespace kvant::ggml
