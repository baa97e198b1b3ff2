#include "operations.hpp"

#include <cstring>

#include "buffers.hpp"

namespace kvant::ggml {

namespace {

// Whether an operand comes from the device as it is: out of its memory, or out of attention. ggml's scheduler spreads the operations of a
// device over neighbours that it supports; were the activations' own ROPE and rotations among them, each would cost a round trip.
bool from_device(const ggml_tensor* tensor) {
  for (const ggml_tensor* t = tensor; t != nullptr;) {
    if (t->op == GGML_OP_NONE || t->op == GGML_OP_FLASH_ATTN_EXT) return true;
    const bool copy = t->op == GGML_OP_CPY || t->op == GGML_OP_CONT || t->op == GGML_OP_DUP || t->op == GGML_OP_ROPE;
    if (!is_view_op(t->op) && !copy && t->op != GGML_OP_MUL_MAT) return false;
    if (t->op == GGML_OP_MUL_MAT && t->op_params[1] != GGML_HINT_SRC0_IS_HADAMARD) return false;
    t = t->src[t->op == GGML_OP_MUL_MAT ? 1 : 0];
  }
  return false;
}

// SCALE by 0 in place: how llama.cpp clears the states of recurrent layers, which lie in the cache's memory.
bool is_zeroing(const ggml_tensor* op) {
  float scale = 1.0f, bias = 1.0f;
  std::memcpy(&scale, op->op_params, sizeof scale);
  std::memcpy(&bias, op->op_params + 1, sizeof bias);
  return op->view_src != nullptr && op->type == GGML_TYPE_F32 && scale == 0.0f && bias == 0.0f && ggml_is_contiguous(op);
}

Status record_zeroing(Work& work, const ggml_tensor* op) {
  if (ggml_nelements(op) == 0) return {};
  work.list().add_fill({{buffer_id(op), offset_of(op), ggml_nbytes(op)}, 0}, "zeros", true);
  return {};
}

}  // namespace

bool supports(const ggml_tensor* op, const ExecutorLimits& limits) {
  if (is_view_op(op->op)) return true;
  switch (op->op) {
    case GGML_OP_FLASH_ATTN_EXT: return supports_attention(op, limits);
    case GGML_OP_SET_ROWS:
    case GGML_OP_GET_ROWS:
    case GGML_OP_CPY:
    case GGML_OP_CONT:
    case GGML_OP_DUP: return supports_transfer(op, limits);
    case GGML_OP_ROPE: return from_device(op->src[0]) && supports_rope(op, limits);
    case GGML_OP_MUL_MAT: return from_device(op->src[1]) && supports_hadamard(op, limits);
    case GGML_OP_SCALE: return is_zeroing(op);
    default: return false;
  }
}

Status prepare(Work& work, const ggml_tensor* node) {
  if (node->op == GGML_OP_SET_ROWS) KVANT_TRY(work.planar().note_rows_set(work, node));
  if (node->op != GGML_OP_FLASH_ATTN_EXT) return {};
  return work.planar().prepare(work, node->src[1], node->src[2], static_cast<std::uint32_t>(node->src[1]->ne[2]));
}

Status record(Work& work, const ggml_tensor* node) {
  // Attention and SET_ROWS know pages.
  if (node->op != GGML_OP_FLASH_ATTN_EXT && node->op != GGML_OP_SET_ROWS) {
    KVANT_TRY(work.planar().settle(work, node));
    for (const ggml_tensor* source : node->src) KVANT_TRY(work.planar().settle(work, source));
  }
  switch (node->op) {
    case GGML_OP_FLASH_ATTN_EXT: return record_attention(work, node);
    case GGML_OP_SET_ROWS:
    case GGML_OP_GET_ROWS:
    case GGML_OP_CPY:
    case GGML_OP_CONT:
    case GGML_OP_DUP: return record_transfer(work, node);
    case GGML_OP_ROPE: return record_rope(work, node);
    case GGML_OP_MUL_MAT: return record_hadamard(work, node);
    case GGML_OP_SCALE: return record_zeroing(work, node);
    default: return {StatusCode::unimplemented, "not an operation of this backend"};
  }
}

BufferId buffer_id(const ggml_tensor* tensor) { return device_buffer(buffer_of(tensor)); }

}  // namespace kvant::ggml
