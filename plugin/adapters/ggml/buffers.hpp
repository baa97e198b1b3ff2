// ggml's buffers: memory of the device, and memory that host and device share.
#pragma once

#include "machine.hpp"

namespace kvant::ggml {

// ggml sees the first member alone.
struct BufferType {
  ggml_backend_buffer_type type{};
  Machine* machine = nullptr;
};

// Fill the structs of the API version at hand. `device`: theirs.
void make_device_buffer_type(BufferType& type, ggml_backend_dev_t device, Machine& machine, int api_version);
// Memory that the processor uses as its own and the device reads in place.
void make_host_buffer_type(BufferType& type, ggml_backend_dev_t device, Machine& machine, int api_version);

// The device's buffer behind one of ggml's; none if it is another backend's, or a dummy.
BufferId device_buffer(ggml_backend_buffer_t buffer);
// Whether the processor sees it too.
bool is_shared(ggml_backend_buffer_t buffer);

}  // namespace kvant::ggml
