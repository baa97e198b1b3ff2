// The device of the page-kernel tests; see page_kernels_device.hpp.
#include "page_kernels_device.hpp"

#include <doctest/doctest.h>

#include <cstdlib>

namespace kvant::test {

PageKernelDevice* PageKernelDevice::get(std::string& reason) {
  static std::string failure;
  static const std::unique_ptr<PageKernelDevice> opened = []() -> std::unique_ptr<PageKernelDevice> {
    auto device = std::make_unique<PageKernelDevice>();
    InstanceOptions options;
    const char* validation = std::getenv("KVANT_VALIDATION");
    options.validation = validation != nullptr && std::string_view(validation) == "1";
    options.validation_message = [](void*, const char* message) { FAIL_CHECK("validation: " << message); };
    auto instance = Instance::create(options);
    if (!instance.ok()) {
      failure = instance.status().message();
      return nullptr;
    }
    device->instance_ = std::move(instance).value();
    const auto best = device->instance_->best_device();
    if (!best.ok()) {
      failure = best.status().message();
      return nullptr;
    }
    auto context = device->instance_->open(best.value(), {});
    if (!context.ok()) {
      failure = context.status().message();
      return nullptr;
    }
    device->context_ = std::move(context).value();
    return device;
  }();
  reason = failure;
  if (opened == nullptr && std::getenv("KVANT_REQUIRE_DEVICE") != nullptr) FAIL("no device: " << failure);
  return opened.get();
}

Status PageKernelDevice::run(KernelId kernel, const SpecValues& spec, const void* push, std::size_t push_bytes,
                             std::vector<Bytes*> bindings, std::array<std::uint32_t, 3> groups) {
  Executor& executor = context_->executor();
  std::vector<BufferId> buffers;
  std::vector<Staging> results;
  CommandList list;
  const auto prepare = [&]() -> Status {
    for (const Bytes* bytes : bindings) {
      KVANT_ASSIGN(const BufferId buffer, executor.create_buffer(bytes->size(), BufferKind::device));
      buffers.push_back(buffer);
      KVANT_ASSIGN(const Staging upload, executor.stage(bytes->size(), BufferKind::upload));
      std::memcpy(upload.data, bytes->data(), bytes->size());
      list.add_copy({upload.range.buffer, upload.range.offset, buffer, 0, bytes->size()}, "upload", false);
    }
    Dispatch& dispatch = list.add_dispatch(kernel, "page kernel", true);
    dispatch.spec = spec;
    std::memcpy(dispatch.push.data(), push, push_bytes);
    for (std::size_t i = 0; i < bindings.size(); ++i) dispatch.bindings[i] = {buffers[i], 0, bindings[i]->size()};
    dispatch.groups = groups;
    bool barrier = true;
    for (std::size_t i = 0; i < bindings.size(); ++i) {
      KVANT_ASSIGN(const Staging result, executor.stage(bindings[i]->size(), BufferKind::readback));
      results.push_back(result);
      list.add_copy({buffers[i], 0, result.range.buffer, result.range.offset, bindings[i]->size()}, "result", barrier);
      barrier = false;
    }
    KVANT_ASSIGN(const Ticket ticket, executor.submit(list));
    return executor.wait(ticket);
  };
  Status status = prepare();
  if (status.ok()) {
    for (std::size_t i = 0; i < bindings.size(); ++i) {
      std::memcpy(bindings[i]->data(), results[i].data, bindings[i]->size());
    }
  }
  for (const BufferId buffer : buffers) executor.destroy_buffer(buffer);
  return status;
}

bool take_combination(std::uint32_t format_index, std::uint32_t head_dim_index, std::uint32_t one_in) {
  const char* full = std::getenv("KVANT_TEST_FULL");
  if (full != nullptr && std::string_view(full) == "1") return true;
  return (format_index + head_dim_index) % one_in == 0;
}

std::size_t io_bytes(std::uint32_t io_type) { return io_type == KVANT_IO_F32 ? 4 : 2; }

float as_io(std::uint32_t io_type, float x) {
  if (io_type == KVANT_IO_F16) return f16_to_f32(f32_to_f16(x));
  if (io_type == KVANT_IO_BF16) return bf16_to_f32(f32_to_bf16(x));
  return x;
}

void store_io(std::uint32_t io_type, Bytes& tensor, std::size_t element, float x) {
  if (io_type == KVANT_IO_F32) {
    std::memcpy(tensor.data() + element * 4, &x, 4);
  } else {
    const std::uint16_t h = io_type == KVANT_IO_F16 ? f32_to_f16(x) : f32_to_bf16(x);
    std::memcpy(tensor.data() + element * 2, &h, 2);
  }
}

float load_io(std::uint32_t io_type, const Bytes& tensor, std::size_t element) {
  if (io_type == KVANT_IO_F32) {
    float x = 0;
    std::memcpy(&x, tensor.data() + element * 4, 4);
    return x;
  }
  std::uint16_t h = 0;
  std::memcpy(&h, tensor.data() + element * 2, 2);
  return io_type == KVANT_IO_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

}  // namespace kvant::test
