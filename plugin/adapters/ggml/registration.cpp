// The library's entry: what ggml calls after dlopen, and the device and backend that it then sees. Nothing here is ever freed: ggml
// keeps registrations to the end of the process.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "buffers.hpp"
#include "ggml_log.hpp"
#include "machine.hpp"
#include "operations.hpp"
#include "rollback.hpp"

namespace kvant::ggml {

namespace {

struct Device {
  ggml_backend_device device{};
  BufferType buffers, host_buffers;
  std::unique_ptr<Machine> machine;
};

struct Registry {
  ggml_backend_reg reg{};
  std::unique_ptr<Instance> instance;
  std::vector<std::unique_ptr<Device>> devices;
};

Device& self(ggml_backend_dev_t device) { return *static_cast<Device*>(device->context); }
Machine& machine_of(ggml_backend_t backend) { return *self(backend->device).machine; }

// ---- backend ----

const char* backend_name(ggml_backend_t backend) { return machine_of(backend).name().c_str(); }
void backend_free(ggml_backend_t backend) { delete backend; }

void backend_synchronize(ggml_backend_t backend) {
  if (const Status status = machine_of(backend).wait(); !status.ok()) log_error("synchronize: " + status.message());
}

ggml_status backend_compute(ggml_backend_t backend, ggml_cgraph* graph) {
  const Status status = machine_of(backend).compute(graph);
  if (status.ok()) return GGML_STATUS_SUCCESS;
  log_error(status.message());
  return status.code() == StatusCode::resource_exhausted ? GGML_STATUS_ALLOC_FAILED : GGML_STATUS_FAILED;
}

ggml_guid_t guid() {
  static ggml_guid value = {0x6b, 0x76, 0x61, 0x6e, 0x74, 0x2d, 0x67, 0x67, 0x6d, 0x6c, 0x2d, 0x31, 0x9f, 0x4c, 0x20, 0x57};
  return &value;
}

// ---- device ----

ggml_backend_t init_backend(ggml_backend_dev_t device, const char*) {
  if (self(device).machine->limits() == nullptr) return nullptr;
  auto* backend = new (std::nothrow) ggml_backend{};
  if (backend == nullptr) return nullptr;
  backend->guid = guid();
  backend->iface.get_name = backend_name;
  backend->iface.free = backend_free;
  backend->iface.synchronize = backend_synchronize;
  backend->iface.graph_compute = backend_compute;
  backend->device = device;
  return backend;
}

void get_memory(ggml_backend_dev_t device, std::size_t* free, std::size_t* total) {
  Machine& machine = *self(device).machine;
  const std::uint64_t held = machine.memory_held();
  *total = static_cast<std::size_t>(machine.memory_total());
  *free = static_cast<std::size_t>(machine.memory_total() - std::min(held, machine.memory_total()));
}

// Neither a device that an application without a CPU beside it would choose, nor one that llama.cpp adds to other GPUs by itself.
enum ggml_backend_dev_type get_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_IGPU; }

// Whether the device has memory that is coherent and cached for the processor.
bool shares(ggml_backend_dev_t device) {
  const ExecutorLimits* limits = self(device).machine->limits();
  return limits != nullptr && limits->max_shared_bytes != 0;
}

void get_props(ggml_backend_dev_t device, ggml_backend_dev_props* props) {
  *props = {};
  props->name = self(device).machine->name().c_str();
  props->description = self(device).machine->description().c_str();
  get_memory(device, &props->memory_free, &props->memory_total);
  props->type = get_type(device);
  props->caps.host_buffer = shares(device);
  props->caps.mmap_support = true;  // otherwise llama.cpp would not map the weights, which are never here
}

bool supports_op(ggml_backend_dev_t device, const ggml_tensor* op) {
  const ExecutorLimits* limits = self(device).machine->limits();
  bool supported = false;
  const Status status = within_memory([&] {
    supported = limits != nullptr && supports(op, *limits);
    return Status();
  });
  return status.ok() && supported;
}

void make_device(Device& own, ggml_backend_reg_t reg, int api_version) {
  ggml_backend_device_i& i = own.device.iface;
  i.get_name = [](ggml_backend_dev_t d) { return self(d).machine->name().c_str(); };
  i.get_description = [](ggml_backend_dev_t d) { return self(d).machine->description().c_str(); };
  i.get_memory = get_memory;
  i.get_type = get_type;
  i.get_props = get_props;
  i.init_backend = init_backend;
  i.get_buffer_type = [](ggml_backend_dev_t d) { return &self(d).buffers.type; };
  i.get_host_buffer_type = [](ggml_backend_dev_t d) { return shares(d) ? &self(d).host_buffers.type : nullptr; };
  i.supports_op = supports_op;
  i.supports_buft = [](ggml_backend_dev_t d, ggml_backend_buffer_type_t type) {
    return type == &self(d).buffers.type || type == &self(d).host_buffers.type;
  };
  own.device.reg = reg;
  own.device.context = &own;
  make_device_buffer_type(own.buffers, &own.device, *own.machine, api_version);
  make_host_buffer_type(own.host_buffers, &own.device, *own.machine, api_version);
}

// ---- registry ----

// Version 3 brought this function; what else it changed cannot be asked for. Weak, so that older libraries resolve it to nothing.
#pragma weak ggml_backend_buft_alloc_buffer_n
int api_version() { return &ggml_backend_buft_alloc_buffer_n != nullptr ? 3 : 2; }

void on_validation(void*, const char* message) { log_error(std::string("validation: ") + message); }

void on_log(void*, std::uint32_t level, const char* message, std::size_t size) {
  if (level >= static_cast<std::uint32_t>(LogLevel::warning)) log_info(std::string(message, size));
}

Registry* make_registry() {
  auto registry = std::make_unique<Registry>();
  InstanceOptions options;
  options.log.callback = on_log;
  const char* validation = std::getenv("KVANT_VALIDATION");
  if (validation != nullptr && std::string(validation) == "1") {
    options.validation = true;
    options.validation_message = on_validation;
  }
  auto instance = Instance::create(options);
  if (!instance.ok()) {
    log_error(instance.status().message());
    return nullptr;
  }
  registry->instance = std::move(instance.value());
  registry->reg.api_version = api_version();
  registry->reg.iface.get_name = [](ggml_backend_reg_t) { return "KVANT"; };
  registry->reg.iface.get_device_count = [](ggml_backend_reg_t r) { return static_cast<Registry*>(r->context)->devices.size(); };
  registry->reg.iface.get_device = [](ggml_backend_reg_t r, std::size_t index) -> ggml_backend_dev_t {
    auto& devices = static_cast<Registry*>(r->context)->devices;
    return index < devices.size() ? &devices[index]->device : nullptr;
  };
  registry->reg.context = registry.get();
  const auto snapshots = registry->instance->devices();
  for (std::uint32_t i = 0; i < snapshots.size(); ++i) {
    if (const auto plan = make_device_plan(snapshots[i], ""); !plan.ok() || !plan.value().usable()) continue;
    auto device = std::make_unique<Device>();
    device->machine = std::make_unique<Machine>(*registry->instance, i, static_cast<std::uint32_t>(registry->devices.size()));
    make_device(*device, &registry->reg, registry->reg.api_version);
    registry->devices.push_back(std::move(device));
  }
  return registry.release();
}

Registry* registry() {
  static Registry* const only = [] {
    Registry* made = nullptr;
    const Status status = within_memory([&] {
      made = make_registry();
      return Status();
    });
    if (!status.ok()) log_error(status.message());
    return made;
  }();
  return only;
}

}  // namespace

}  // namespace kvant::ggml

extern "C" {

__attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
  auto* registry = kvant::ggml::registry();
  return registry == nullptr ? nullptr : &registry->reg;
}

// 0: this machine has no Vulkan device.
__attribute__((visibility("default"))) int ggml_backend_score(void) {
  auto* registry = kvant::ggml::registry();
  return registry == nullptr || registry->devices.empty() ? 0 : 1;
}

}
