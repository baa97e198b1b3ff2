// ggml tensors as the adapter sees them: formats of types, places in buffers, extents.
#pragma once

#include <optional>

#include "formats.hpp"
#include "interface.hpp"

namespace kvant::ggml {

// The formats that ggml's KV caches and their sources have; none for any other type.
std::optional<FormatId> format_of(ggml_type type);
bool in_blocks(ggml_type type);  // 32 elements share a scale

// Buffers of devices have no addresses: those of tensors count from here.
inline constexpr std::uintptr_t kBase = 0x1000;

inline ggml_backend_buffer_t buffer_of(const ggml_tensor* tensor) {
  return tensor->view_src != nullptr ? tensor->view_src->buffer : tensor->buffer;
}
inline std::uint64_t offset_of(const ggml_tensor* tensor) { return reinterpret_cast<std::uintptr_t>(tensor->data) - kBase; }

// Bytes from the first element's to behind the last one's.
std::uint64_t extent_of(const ggml_tensor* tensor);
bool contiguous(const ggml_tensor* tensor);
// Elements of a row lie side by side.
bool rows_contiguous(const ggml_tensor* tensor);
std::uint64_t elements_of(const ggml_tensor* tensor);
// A view, or nothing to do at all.
bool is_view_op(ggml_op op);

}  // namespace kvant::ggml
