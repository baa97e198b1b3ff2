// The operations that a KV cache needs of its backend: which of them run here, and their commands.
#pragma once

#include "tensors.hpp"
#include "work.hpp"

namespace kvant::ggml {

// Whether the device runs an operation; sources may have no buffer yet. `limits`: the device's.
bool supports(const ggml_tensor* op, const ExecutorLimits& limits);
bool supports_attention(const ggml_tensor* op, const ExecutorLimits& limits);
bool supports_transfer(const ggml_tensor* op, const ExecutorLimits& limits);

// Adds the commands of a node; its tensors lie in this device's buffers. Errors: of the executor.
Status record(Work& work, const ggml_tensor* node);
Status record_attention(Work& work, const ggml_tensor* node);
Status record_transfer(Work& work, const ggml_tensor* node);

// The device's buffer that a tensor lies in.
BufferId buffer_id(const ggml_tensor* tensor);

}  // namespace kvant::ggml
