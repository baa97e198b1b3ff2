// The operations that a KV cache needs of its backend: which of them run here, and their commands.
#pragma once

#include "tensors.hpp"
#include "work.hpp"

namespace kvant::ggml {

// Whether the device runs an operation; sources may have no buffer yet. `limits`: the device's.
bool supports(const ggml_tensor* op, const ExecutorLimits& limits);
bool supports_attention(const ggml_tensor* op, const ExecutorLimits& limits);
bool supports_transfer(const ggml_tensor* op, const ExecutorLimits& limits);
bool supports_rope(const ggml_tensor* op, const ExecutorLimits& limits);
bool supports_hadamard(const ggml_tensor* op, const ExecutorLimits& limits);  // of MUL_MAT, what its hint says to be one

// What is to be known before any node of a graph is recorded: which tensors are caches, and their turning into pages.
Status prepare(Work& work, const ggml_tensor* node);

// Adds the commands of a node; its tensors lie in this device's buffers. Errors: of the executor.
Status record(Work& work, const ggml_tensor* node);
Status record_attention(Work& work, const ggml_tensor* node);
Status record_transfer(Work& work, const ggml_tensor* node);
// SET_ROWS into a planar tensor: whether the rows are whole tokens of it, and the commands.
bool can_append(const PlanarTensors& planar, const ggml_tensor* op);
Status record_append(Work& work, const ggml_tensor* op);
Status record_rope(Work& work, const ggml_tensor* node);
Status record_hadamard(Work& work, const ggml_tensor* node);

// The device's buffer that a tensor lies in.
BufferId buffer_id(const ggml_tensor* tensor);

}  // namespace kvant::ggml
