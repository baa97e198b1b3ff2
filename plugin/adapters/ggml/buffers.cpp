#include "buffers.hpp"

#include <cstring>
#include <limits>
#include <new>

#include "ggml_log.hpp"
#include "tensors.hpp"

namespace kvant::ggml {

namespace {

struct OwnBuffer {
  Machine* machine = nullptr;
  BufferId id = BufferId::none;
  std::byte* base = nullptr;  // of shared memory; null of the device's own, be it mapped or not
};

// Reads of whole words may reach beyond a tensor's last byte.
constexpr std::uint64_t kSlack = 64;
constexpr std::size_t kAlignment = 256;

OwnBuffer& self(ggml_backend_buffer_t buffer) { return *static_cast<OwnBuffer*>(buffer->context); }

// ggml's buffers cannot fail: what went wrong is said, and the next computation fails as well.
void report(const char* what, const Status& status) {
  if (!status.ok()) log_error(std::string(what) + ": " + status.message());
}

void free_buffer(ggml_backend_buffer_t buffer) {
  OwnBuffer* own = &self(buffer);
  own->machine->destroy_buffer(own->id);
  delete own;
}

void* get_base(ggml_backend_buffer_t) { return reinterpret_cast<void*>(kBase); }

void memset_tensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor, std::uint8_t value, std::size_t offset, std::size_t size) {
  report("memset_tensor", self(buffer).machine->fill(self(buffer).id, offset_of(tensor) + offset, size, value));
}

void set_tensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor, const void* data, std::size_t offset, std::size_t size) {
  report("set_tensor", self(buffer).machine->write(self(buffer).id, offset_of(tensor) + offset, data, size));
}

// A tensor begins to lie here: what pages a former one left behind are rows again.
ggml_status init_tensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor) {
  if (tensor->view_src == nullptr) report("init_tensor", self(buffer).machine->place(self(buffer).id, offset_of(tensor), ggml_nbytes(tensor)));
  return GGML_STATUS_SUCCESS;
}

void get_tensor(ggml_backend_buffer_t buffer, const ggml_tensor* tensor, void* data, std::size_t offset, std::size_t size) {
  report("get_tensor", self(buffer).machine->read(self(buffer).id, offset_of(tensor) + offset, data, size));
}

// Between two tensors of one device that lie alike, byte by byte.
bool cpy_tensor(ggml_backend_buffer_t buffer, const ggml_tensor* source, ggml_tensor* destination) {
  const ggml_backend_buffer_t from = buffer_of(source);
  const BufferId id = device_buffer(from);
  if (id == BufferId::none || is_shared(from) || self(from).machine != self(buffer).machine || source->type != destination->type || !ggml_is_contiguous(source) ||
      !ggml_is_contiguous(destination) || ggml_nbytes(source) != ggml_nbytes(destination))
    return false;
  return self(buffer).machine->copy(id, offset_of(source), self(buffer).id, offset_of(destination), ggml_nbytes(source)).ok();
}

void clear(ggml_backend_buffer_t buffer, std::uint8_t value) {
  report("clear", self(buffer).machine->fill(self(buffer).id, 0, (buffer->size + 3) / 4 * 4, value));
}

// Shared memory is the processor's own.
void* shared_base(ggml_backend_buffer_t buffer) { return self(buffer).base; }

void shared_memset(ggml_backend_buffer_t, ggml_tensor* tensor, std::uint8_t value, std::size_t offset, std::size_t size) {
  std::memset(static_cast<std::byte*>(tensor->data) + offset, value, size);
}

void shared_set(ggml_backend_buffer_t, ggml_tensor* tensor, const void* data, std::size_t offset, std::size_t size) {
  std::memcpy(static_cast<std::byte*>(tensor->data) + offset, data, size);
}

void shared_get(ggml_backend_buffer_t, const ggml_tensor* tensor, void* data, std::size_t offset, std::size_t size) {
  std::memcpy(data, static_cast<const std::byte*>(tensor->data) + offset, size);
}

void shared_clear(ggml_backend_buffer_t buffer, std::uint8_t value) { std::memset(self(buffer).base, value, buffer->size); }

Machine& machine_of(ggml_backend_buffer_type_t type) { return *reinterpret_cast<BufferType*>(type)->machine; }

ggml_backend_buffer_t make_buffer(ggml_backend_buffer_type_t type, std::size_t size, BufferKind kind) {
  Machine& machine = machine_of(type);
  auto id = machine.create_buffer((size + kSlack + 15) / 16 * 16, kind);
  if (!id.ok()) {
    log_error(machine.name() + ": " + id.status().message());
    return nullptr;
  }
  const bool shared = kind == BufferKind::shared;
  auto* own = new (std::nothrow) OwnBuffer{&machine, id.value(), shared ? machine.mapped(id.value()) : nullptr};
  auto* buffer = new (std::nothrow) ggml_backend_buffer{};
  if (own == nullptr || buffer == nullptr) {
    machine.destroy_buffer(id.value());
    delete own;
    delete buffer;
    return nullptr;
  }
  buffer->iface.free_buffer = free_buffer;
  buffer->iface.get_base = shared ? shared_base : get_base;
  buffer->iface.init_tensor = shared ? nullptr : init_tensor;
  buffer->iface.memset_tensor = shared ? shared_memset : memset_tensor;
  buffer->iface.set_tensor = shared ? shared_set : set_tensor;
  buffer->iface.get_tensor = shared ? shared_get : get_tensor;
  buffer->iface.cpy_tensor = shared ? nullptr : cpy_tensor;
  buffer->iface.clear = shared ? shared_clear : clear;
  buffer->buft = type;
  buffer->context = own;
  buffer->size = size;
  buffer->usage = GGML_BACKEND_BUFFER_USAGE_ANY;
  return buffer;
}

ggml_backend_buffer_t alloc_device(ggml_backend_buffer_type_t type, std::size_t size) { return make_buffer(type, size, BufferKind::unified); }

// Never other memory in its stead: ggml's scheduler counts on the type, and makes no copies.
ggml_backend_buffer_t alloc_shared(ggml_backend_buffer_type_t type, std::size_t size) { return make_buffer(type, size, BufferKind::shared); }

std::size_t alignment(ggml_backend_buffer_type_t) { return kAlignment; }
// What Vulkan promises of mapped addresses.
std::size_t shared_alignment(ggml_backend_buffer_type_t) { return 64; }

const char* device_name(ggml_backend_buffer_type_t type) { return machine_of(type).name().c_str(); }
const char* shared_name(ggml_backend_buffer_type_t type) { return machine_of(type).host_name().c_str(); }

template <std::uint64_t ExecutorLimits::* kLimit>
std::size_t max_size(ggml_backend_buffer_type_t type) {
  const ExecutorLimits* limits = machine_of(type).limits();
  if (limits == nullptr || limits->*kLimit <= kSlack + 16) return 0;
  return static_cast<std::size_t>(std::min<std::uint64_t>(limits->*kLimit - kSlack - 16, SIZE_MAX));
}

template <typename Functions>
void fill(Functions& functions, ggml_backend_dev_t device, bool shared) {
  functions.get_name = shared ? shared_name : device_name;
  functions.alloc_buffer = shared ? alloc_shared : alloc_device;
  functions.get_alignment = shared ? shared_alignment : alignment;
  functions.get_max_size = shared ? max_size<&ExecutorLimits::max_shared_bytes> : max_size<&ExecutorLimits::max_slab_bytes>;
  if (shared) functions.is_host = [](ggml_backend_buffer_type_t) { return true; };
  functions.device = device;
}

void make(BufferType& type, ggml_backend_dev_t device, Machine& machine, int api_version, bool shared) {
  type = {};
  type.machine = &machine;
  if (api_version >= 3)
    fill(type.type.v3, device, shared);
  else
    fill(type.type.v2, device, shared);
}

}  // namespace

void make_device_buffer_type(BufferType& type, ggml_backend_dev_t device, Machine& machine, int api_version) {
  make(type, device, machine, api_version, false);
}

void make_host_buffer_type(BufferType& type, ggml_backend_dev_t device, Machine& machine, int api_version) {
  make(type, device, machine, api_version, true);
}

BufferId device_buffer(ggml_backend_buffer_t buffer) {
  if (buffer == nullptr || buffer->iface.free_buffer != free_buffer || buffer->context == nullptr) return BufferId::none;
  return self(buffer).id;
}

bool is_shared(ggml_backend_buffer_t buffer) { return device_buffer(buffer) != BufferId::none && self(buffer).base != nullptr; }

}  // namespace kvant::ggml
