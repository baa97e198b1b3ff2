// ggml tensors as the adapter sees them: formats of types, places in buffers. Sizes and contiguity are ggml's own functions.
#pragma once

#include <optional>

#include "formats.hpp"
#include "interface.hpp"

namespace kvant::ggml {

// The formats that ggml's KV caches and their sources have; none for any other type.
std::optional<FormatId> format_of(ggml_type type);
inline bool in_blocks(ggml_type type) { return ggml_blck_size(type) > 1; }  // elements share a scale

// Buffers of devices have no addresses: those of tensors count from here.
inline constexpr std::uintptr_t kBase = 0x1000;

// What the tensor is a view of, or itself.
inline const ggml_tensor* root_of(const ggml_tensor* tensor) { return tensor->view_src != nullptr ? tensor->view_src : tensor; }

inline ggml_backend_buffer_t buffer_of(const ggml_tensor* tensor) { return root_of(tensor)->buffer; }
// Bytes from its buffer's beginning.
std::uint64_t offset_of(const ggml_tensor* tensor);

// Elements (or blocks) of a row lie side by side.
inline bool rows_contiguous(const ggml_tensor* tensor) { return tensor->nb[0] == ggml_type_size(tensor->type); }
// A view, or nothing to do at all.
bool is_view_op(ggml_op op);

// ggml counts in 64 bits and bytes in std::size_t; shaders in 32, of which `supports` has made sure.
template <typename T>
std::uint32_t u32(T value) {
  return static_cast<std::uint32_t>(value);
}

}  // namespace kvant::ggml
