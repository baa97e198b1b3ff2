#include "buffers.hpp"

#include <limits>
#include <new>

#include "ggml_log.hpp"
#include "tensors.hpp"

namespace kvant::ggml {

namespace {

struct DeviceBuffer {
  Machine* machine = nullptr;
  BufferId id = BufferId::none;
};

// Reads of whole words may reach beyond a tensor's last byte.
constexpr std::uint64_t kSlack = 64;
constexpr std::size_t kAlignment = 256;

DeviceBuffer& self(ggml_backend_buffer_t buffer) { return *static_cast<DeviceBuffer*>(buffer->context); }

// ggml's buffers cannot fail: what went wrong is said, and the next computation fails as well.
void report(const char* what, const Status& status) {
  if (!status.ok()) log_error(std::string(what) + ": " + status.message());
}

void free_buffer(ggml_backend_buffer_t buffer) {
  DeviceBuffer* own = &self(buffer);
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

void get_tensor(ggml_backend_buffer_t buffer, const ggml_tensor* tensor, void* data, std::size_t offset, std::size_t size) {
  report("get_tensor", self(buffer).machine->read(self(buffer).id, offset_of(tensor) + offset, data, size));
}

// Between two tensors of one device that lie alike, byte by byte.
bool cpy_tensor(ggml_backend_buffer_t buffer, const ggml_tensor* source, ggml_tensor* destination) {
  const ggml_backend_buffer_t from = buffer_of(source);
  const BufferId id = device_buffer(from);
  if (id == BufferId::none || self(from).machine != self(buffer).machine || source->type != destination->type || !ggml_is_contiguous(source) ||
      !ggml_is_contiguous(destination) || ggml_nbytes(source) != ggml_nbytes(destination))
    return false;
  return self(buffer).machine->copy(id, offset_of(source), self(buffer).id, offset_of(destination), ggml_nbytes(source)).ok();
}

void clear(ggml_backend_buffer_t buffer, std::uint8_t value) {
  report("clear", self(buffer).machine->fill(self(buffer).id, 0, (buffer->size + 3) / 4 * 4, value));
}

// The context of either version of a buffer type; its place differs, and so does the function that asks.
ggml_backend_buffer_t alloc(ggml_backend_buffer_type_t type, Machine& machine, std::size_t size) {
  auto id = machine.create_buffer((size + kSlack + 15) / 16 * 16);
  if (!id.ok()) {
    log_error(machine.name() + ": " + id.status().message());
    return nullptr;
  }
  auto* own = new (std::nothrow) DeviceBuffer{&machine, id.value()};
  auto* buffer = new (std::nothrow) ggml_backend_buffer{};
  if (own == nullptr || buffer == nullptr) {
    machine.destroy_buffer(id.value());
    delete own;
    delete buffer;
    return nullptr;
  }
  buffer->iface.free_buffer = free_buffer;
  buffer->iface.get_base = get_base;
  buffer->iface.memset_tensor = memset_tensor;
  buffer->iface.set_tensor = set_tensor;
  buffer->iface.get_tensor = get_tensor;
  buffer->iface.cpy_tensor = cpy_tensor;
  buffer->iface.clear = clear;
  buffer->buft = type;
  buffer->context = own;
  buffer->size = size;
  buffer->usage = GGML_BACKEND_BUFFER_USAGE_ANY;
  return buffer;
}

std::size_t most(Machine& machine) {
  const ExecutorLimits* limits = machine.limits();
  return limits == nullptr ? 0 : static_cast<std::size_t>(std::min<std::uint64_t>(limits->max_slab_bytes - kSlack - 16, SIZE_MAX));
}

Machine& machine_v3(ggml_backend_buffer_type_t type) { return *static_cast<Machine*>(type->v3.context); }
Machine& machine_v2(ggml_backend_buffer_type_t type) { return *static_cast<Machine*>(type->v2.context); }

}  // namespace

void make_buffer_type(ggml_backend_buffer_type& type, ggml_backend_dev_t device, Machine& machine, int api_version) {
  type = {};
  if (api_version >= 3) {
    type.v3.get_name = [](ggml_backend_buffer_type_t t) { return machine_v3(t).name().c_str(); };
    type.v3.alloc_buffer = [](ggml_backend_buffer_type_t t, std::size_t size) { return alloc(t, machine_v3(t), size); };
    type.v3.get_alignment = [](ggml_backend_buffer_type_t) { return kAlignment; };
    type.v3.get_max_size = [](ggml_backend_buffer_type_t t) { return most(machine_v3(t)); };
    type.v3.device = device;
    type.v3.context = &machine;
  } else {
    type.v2.get_name = [](ggml_backend_buffer_type_t t) { return machine_v2(t).name().c_str(); };
    type.v2.alloc_buffer = [](ggml_backend_buffer_type_t t, std::size_t size) { return alloc(t, machine_v2(t), size); };
    type.v2.get_alignment = [](ggml_backend_buffer_type_t) { return kAlignment; };
    type.v2.get_max_size = [](ggml_backend_buffer_type_t t) { return most(machine_v2(t)); };
    type.v2.device = device;
    type.v2.context = &machine;
  }
}

BufferId device_buffer(ggml_backend_buffer_t buffer) {
  if (buffer == nullptr || buffer->iface.free_buffer != free_buffer || buffer->context == nullptr) return BufferId::none;
  return self(buffer).id;
}

}  // namespace kvant::ggml
