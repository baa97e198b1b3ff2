// The backend library met by a ggml of an older backend API: version 2, whose buffer types have six functions, not
// eight. The structs are declared here once more, from ggml 0.21's layouts, so that a wrong declaration in the library
// cannot agree with itself. Arguments: the library, and the version that it must choose beside the libggml-base that is
// loaded (3 for one that has alloc_buffer_n).
#include <dlfcn.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

struct BufferType {
  const char* (*get_name)(BufferType*);
  struct Buffer* (*alloc_buffer)(BufferType*, std::size_t);
  std::size_t (*get_alignment)(BufferType*);
  std::size_t (*get_max_size)(BufferType*);
  std::size_t (*get_alloc_size)(BufferType*, const ggml_tensor*);
  bool (*is_host)(BufferType*);
  void* device;
  void* context;
};

struct Buffer {
  void (*free_buffer)(Buffer*);
  void* (*get_base)(Buffer*);
  int (*init_tensor)(Buffer*, ggml_tensor*);
  void (*memset_tensor)(Buffer*, ggml_tensor*, std::uint8_t, std::size_t, std::size_t);
  void (*set_tensor)(Buffer*, ggml_tensor*, const void*, std::size_t, std::size_t);
  void (*get_tensor)(Buffer*, const ggml_tensor*, void*, std::size_t, std::size_t);
  void* two_dimensions[2];
  bool (*cpy_tensor)(Buffer*, const ggml_tensor*, ggml_tensor*);
  void (*clear)(Buffer*, std::uint8_t);
  void (*reset)(Buffer*);
  BufferType* type;
  void* context;
  std::size_t size;
  int usage;
};

struct Backend {
  void* guid;
  const char* (*get_name)(Backend*);
  void (*free)(Backend*);
  void* async[5];
  void (*synchronize)(Backend*);
  void* plans[4];
  int (*graph_compute)(Backend*, ggml_cgraph*);
  void* others[3];
  void* device;
  void* context;
};

struct Device {
  const char* (*get_name)(Device*);
  const char* (*get_description)(Device*);
  void (*get_memory)(Device*, std::size_t*, std::size_t*);
  int (*get_type)(Device*);
  void* get_props;
  Backend* (*init_backend)(Device*, const char*);
  BufferType* (*get_buffer_type)(Device*);
  void* host_buffers[2];
  bool (*supports_op)(Device*, const ggml_tensor*);
  bool (*supports_buft)(Device*, BufferType*);
  void* others[4];
  void* reg;
  void* context;
};

struct Registration {
  int api_version;
  const char* (*get_name)(Registration*);
  std::size_t (*get_device_count)(Registration*);
  Device* (*get_device)(Registration*, std::size_t);
  void* (*get_proc_address)(Registration*, const char*);
  void* context;
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  std::exit(1);
}

// Lays tensors one after the other into a buffer, as ggml's allocator does.
struct Placer {
  Buffer* buffer;
  std::size_t next = 0;

  ggml_tensor* place(ggml_tensor* tensor) {
    const std::size_t alignment = buffer->type->get_alignment(buffer->type);
    const auto* type = buffer->type;
    const std::size_t size =
        type->get_alloc_size == nullptr ? ggml_nbytes(tensor) : type->get_alloc_size(buffer->type, tensor);
    require(next + size <= buffer->size, "the tensors fit");
    tensor->buffer = reinterpret_cast<ggml_backend_buffer_t>(buffer);
    tensor->data = static_cast<char*>(buffer->get_base(buffer)) + next;
    next += (size + alignment - 1) / alignment * alignment;
    if (buffer->init_tensor != nullptr) require(buffer->init_tensor(buffer, tensor) == 0, "init_tensor succeeds");
    return tensor;
  }
};

void check_bytes(Buffer* buffer, ggml_tensor* tensor) {
  std::vector<std::uint8_t> bytes(ggml_nbytes(tensor)), back(bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 + i / 251);
  buffer->set_tensor(buffer, tensor, bytes.data(), 0, bytes.size());
  buffer->get_tensor(buffer, tensor, back.data(), 0, back.size());
  require(back == bytes, "get_tensor returns what set_tensor took");
  buffer->memset_tensor(buffer, tensor, 0x5a, 4, 8);
  std::memset(bytes.data() + 4, 0x5a, 8);
  buffer->get_tensor(buffer, tensor, back.data(), 0, back.size());
  require(back == bytes, "memset_tensor sets its bytes alone");
  buffer->clear(buffer, 0);
  buffer->get_tensor(buffer, tensor, back.data(), 0, back.size());
  require(back == std::vector<std::uint8_t>(bytes.size()), "clear sets all bytes to zero");
}

constexpr std::int64_t kDim = 64, kCells = 32;

// Rows set into a cache of f16, then attention of one query over them, against plain arithmetic.
double check_graph(Device* device, Backend* backend, Buffer* buffer, ggml_context* context) {
  Placer placer{buffer};
  const auto f32 = [&](std::int64_t rows) {
    return placer.place(ggml_new_tensor_2d(context, GGML_TYPE_F32, kDim, rows));
  };
  ggml_tensor* rows = f32(kCells);
  ggml_tensor* query = f32(1);
  ggml_tensor* cache = placer.place(ggml_new_tensor_2d(context, GGML_TYPE_F16, kDim, kCells));
  ggml_tensor* index = placer.place(ggml_new_tensor_1d(context, GGML_TYPE_I64, kCells));
  ggml_tensor* set = ggml_set_rows(context, cache, rows, index);
  set->buffer = cache->buffer;
  set->data = cache->data;
  ggml_tensor* out = placer.place(ggml_flash_attn_ext(context, query, set, set, nullptr, 0.125f, 0.0f, 0.0f));
  for (ggml_tensor* node : {set, out})
    require(device->supports_op(device, node), "SET_ROWS and FLASH_ATTN_EXT are supported");

  std::vector<float> row(kDim * kCells), q(kDim), seen(kDim);
  std::vector<std::int64_t> indices(kCells);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>((i * 7919) % 1024) / 512.0f - 1.0f;
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>((i * 104729) % 1024) / 256.0f - 2.0f;
  for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = kCells - 1 - static_cast<std::int64_t>(i);
  buffer->set_tensor(buffer, rows, row.data(), 0, ggml_nbytes(rows));
  buffer->set_tensor(buffer, query, q.data(), 0, ggml_nbytes(query));
  buffer->set_tensor(buffer, index, indices.data(), 0, ggml_nbytes(index));
  ggml_cgraph* graph = ggml_new_graph(context);
  ggml_build_forward_expand(graph, out);
  require(backend->graph_compute(backend, graph) == 0, "the graph is computed");
  if (backend->synchronize != nullptr) backend->synchronize(backend);
  buffer->get_tensor(buffer, out, seen.data(), 0, ggml_nbytes(out));

  std::vector<double> wanted(kDim);
  double sum = 0;
  for (std::size_t cell = 0; cell < kCells; ++cell) {
    double dot = 0;
    for (std::size_t i = 0; i < kDim; ++i) dot += static_cast<double>(q[i]) * static_cast<double>(row[cell * kDim + i]);
    const double weight = std::exp(0.125 * dot);
    sum += weight;
    for (std::size_t i = 0; i < kDim; ++i) wanted[i] += weight * static_cast<double>(row[cell * kDim + i]);
  }
  double largest = 0;
  for (std::size_t i = 0; i < kDim; ++i)
    largest = std::max(largest, std::abs(wanted[i] / sum - static_cast<double>(seen[i])));
  return largest;
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 3, "the arguments are a library and a version");
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) std::printf("%s\n", dlerror());
  require(library != nullptr, "the library is loaded");
  Registration* (*init)() = nullptr;
  void* const symbol = dlsym(library, "ggml_backend_init");
  std::memcpy(&init, &symbol, sizeof(init));
  require(init != nullptr, "the library has ggml_backend_init");
  Registration* registration = init();
  require(registration != nullptr, "there is a registration");
  std::printf("API version %d", registration->api_version);
  require(registration->api_version == std::atoi(argv[2]), "that is the version expected");
  if (registration->api_version != 2) return std::printf("\n"), 0;

  require(registration->get_device_count(registration) > 0, "there is a device");
  Device* device = registration->get_device(registration, 0);
  BufferType* type = device->get_buffer_type(device);
  require(type->device == device && device->supports_buft(device, type), "the buffer type is the device's");
  require(std::strcmp(type->get_name(type), device->get_name(device)) == 0, "the buffer type has the device's name");
  require(type->is_host == nullptr || !type->is_host(type), "the device's buffers are not the host's");
  require(type->get_max_size == nullptr || type->get_max_size(type) >= 1 << 20, "buffers may be of a megabyte");
  Buffer* buffer = type->alloc_buffer(type, 1 << 20);
  require(buffer != nullptr && buffer->type == type && buffer->size >= 1 << 20, "a buffer of a megabyte is made");
  ggml_context* context = ggml_init({ggml_tensor_overhead() * 32 + ggml_graph_overhead(), nullptr, true});
  Placer placer{buffer};
  check_bytes(buffer, placer.place(ggml_new_tensor_2d(context, GGML_TYPE_F32, 96, 17)));
  Backend* backend = device->init_backend(device, nullptr);
  require(backend != nullptr && backend->device == device, "the device makes a backend");
  const double apart = check_graph(device, backend, buffer, context);
  require(apart < 2e-3, "attention is that of plain arithmetic");
  ggml_free(context);
  buffer->free_buffer(buffer);
  backend->free(backend);
  std::printf(": %s keeps bytes, and attention is within %.1e of plain arithmetic\n", device->get_name(device), apart);
  return 0;
}
