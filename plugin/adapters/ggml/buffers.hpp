// ggml's buffer type and buffers over device memory.
#pragma once

#include "interface.hpp"
#include "machine.hpp"

namespace kvant::ggml {

// Of backend API version 2 or 3. The buffer type lives as long as the device.
void make_buffer_type(ggml_backend_buffer_type& type, ggml_backend_dev_t device, Machine& machine, int api_version);

// none for buffers that are not this backend's, and for dummies without memory.
BufferId device_buffer(ggml_backend_buffer_t buffer);

}  // namespace kvant::ggml
