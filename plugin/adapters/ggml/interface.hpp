// What ggml asks of a backend library: the structs of functions that its own public headers leave out. Declared from the layouts of
// backend API version 3 (ggml 0.27) and 2 (ggml 0.21 and earlier), which differ in the buffer type and in one argument.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <cstddef>
#include <cstdint>

extern "C" {

struct ggml_backend_buffer_type_i_v3 {
  const char* (*get_name)(ggml_backend_buffer_type_t);
  ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t, std::size_t size);
  ggml_backend_buffer_t (*alloc_buffer_n)(ggml_backend_buffer_type_t, ggml_tensor** tensors, int count);
  std::size_t (*get_alignment)(ggml_backend_buffer_type_t);
  std::size_t (*get_max_size)(ggml_backend_buffer_type_t);
  std::size_t (*get_alloc_size)(ggml_backend_buffer_type_t, const ggml_tensor*);
  std::size_t (*get_alloc_size_n)(ggml_backend_buffer_type_t, ggml_tensor** tensors, int count);
  bool (*is_host)(ggml_backend_buffer_type_t);
  ggml_backend_dev_t device;
  void* context;
};

struct ggml_backend_buffer_type_i_v2 {
  const char* (*get_name)(ggml_backend_buffer_type_t);
  ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t, std::size_t size);
  std::size_t (*get_alignment)(ggml_backend_buffer_type_t);
  std::size_t (*get_max_size)(ggml_backend_buffer_type_t);
  std::size_t (*get_alloc_size)(ggml_backend_buffer_type_t, const ggml_tensor*);
  bool (*is_host)(ggml_backend_buffer_type_t);
  ggml_backend_dev_t device;
  void* context;
};

// Of either version; which one is decided when the library is loaded.
struct ggml_backend_buffer_type {
  union {
    ggml_backend_buffer_type_i_v3 v3;
    ggml_backend_buffer_type_i_v2 v2;
  };
};

struct ggml_backend_buffer_i {
  void (*free_buffer)(ggml_backend_buffer_t);
  void* (*get_base)(ggml_backend_buffer_t);
  ggml_status (*init_tensor)(ggml_backend_buffer_t, ggml_tensor*);
  void (*memset_tensor)(ggml_backend_buffer_t, ggml_tensor*, std::uint8_t value, std::size_t offset, std::size_t size);
  void (*set_tensor)(ggml_backend_buffer_t, ggml_tensor*, const void* data, std::size_t offset, std::size_t size);
  void (*get_tensor)(ggml_backend_buffer_t, const ggml_tensor*, void* data, std::size_t offset, std::size_t size);
  void (*set_tensor_2d)(ggml_backend_buffer_t, ggml_tensor*, const void* data, std::size_t offset, std::size_t size,
                        std::size_t copies, std::size_t stride_tensor, std::size_t stride_data);
  void (*get_tensor_2d)(ggml_backend_buffer_t, const ggml_tensor*, void* data, std::size_t offset, std::size_t size,
                        std::size_t copies, std::size_t stride_tensor, std::size_t stride_data);
  bool (*cpy_tensor)(ggml_backend_buffer_t, const ggml_tensor* source, ggml_tensor* destination);
  void (*clear)(ggml_backend_buffer_t, std::uint8_t value);
  void (*reset)(ggml_backend_buffer_t);
};

struct ggml_backend_buffer {
  ggml_backend_buffer_i iface;
  ggml_backend_buffer_type_t buft;
  void* context;
  std::size_t size;
  ggml_backend_buffer_usage usage;
};

struct ggml_backend_i {
  const char* (*get_name)(ggml_backend_t);
  void (*free)(ggml_backend_t);
  void (*set_tensor_async)(ggml_backend_t, ggml_tensor*, const void* data, std::size_t offset, std::size_t size);
  void (*get_tensor_async)(ggml_backend_t, const ggml_tensor*, void* data, std::size_t offset, std::size_t size);
  void (*set_tensor_2d_async)(ggml_backend_t, ggml_tensor*, const void*, std::size_t, std::size_t, std::size_t, std::size_t, std::size_t);
  void (*get_tensor_2d_async)(ggml_backend_t, const ggml_tensor*, void*, std::size_t, std::size_t, std::size_t, std::size_t, std::size_t);
  bool (*cpy_tensor_async)(ggml_backend_t, ggml_backend_t, const ggml_tensor*, ggml_tensor*);
  void (*synchronize)(ggml_backend_t);
  void* (*graph_plan_create)(ggml_backend_t, const ggml_cgraph*);
  void (*graph_plan_free)(ggml_backend_t, void*);
  void (*graph_plan_update)(ggml_backend_t, void*, const ggml_cgraph*);
  ggml_status (*graph_plan_compute)(ggml_backend_t, void*);
  ggml_status (*graph_compute)(ggml_backend_t, ggml_cgraph*);
  void (*event_record)(ggml_backend_t, ggml_backend_event_t);
  void (*event_wait)(ggml_backend_t, ggml_backend_event_t);
  void (*graph_optimize)(ggml_backend_t, ggml_cgraph*, void*);
};

struct ggml_backend {
  ggml_guid_t guid;
  ggml_backend_i iface;
  ggml_backend_dev_t device;
  void* context;
};

struct ggml_backend_device_i {
  const char* (*get_name)(ggml_backend_dev_t);
  const char* (*get_description)(ggml_backend_dev_t);
  void (*get_memory)(ggml_backend_dev_t, std::size_t* free, std::size_t* total);
  enum ggml_backend_dev_type (*get_type)(ggml_backend_dev_t);
  void (*get_props)(ggml_backend_dev_t, ggml_backend_dev_props*);
  ggml_backend_t (*init_backend)(ggml_backend_dev_t, const char* params);
  ggml_backend_buffer_type_t (*get_buffer_type)(ggml_backend_dev_t);
  ggml_backend_buffer_type_t (*get_host_buffer_type)(ggml_backend_dev_t);
  ggml_backend_buffer_t (*buffer_from_host_ptr)(ggml_backend_dev_t, void*, std::size_t, std::size_t);
  bool (*supports_op)(ggml_backend_dev_t, const ggml_tensor*);
  bool (*supports_buft)(ggml_backend_dev_t, ggml_backend_buffer_type_t);
  bool (*offload_op)(ggml_backend_dev_t, const ggml_tensor*);
  ggml_backend_event_t (*event_new)(ggml_backend_dev_t);
  void (*event_free)(ggml_backend_dev_t, ggml_backend_event_t);
  void (*event_synchronize)(ggml_backend_dev_t, ggml_backend_event_t);
};

struct ggml_backend_device {
  ggml_backend_device_i iface;
  ggml_backend_reg_t reg;
  void* context;
};

struct ggml_backend_reg_i {
  const char* (*get_name)(ggml_backend_reg_t);
  std::size_t (*get_device_count)(ggml_backend_reg_t);
  ggml_backend_dev_t (*get_device)(ggml_backend_reg_t, std::size_t index);
  void* (*get_proc_address)(ggml_backend_reg_t, const char* name);
};

struct ggml_backend_reg {
  int api_version;
  ggml_backend_reg_i iface;
  void* context;
};

}  // extern "C"

// The offsets that ggml's library was seen to use (64-bit).
static_assert(sizeof(void*) != 8 || (sizeof(ggml_backend_buffer_type_i_v3) == 80 && sizeof(ggml_backend_buffer_type_i_v2) == 64));
static_assert(sizeof(void*) != 8 || (offsetof(ggml_backend_buffer, buft) == 0x58 && offsetof(ggml_backend_buffer, size) == 0x68));
static_assert(sizeof(void*) != 8 || (offsetof(ggml_backend, device) == 0x88 && offsetof(ggml_backend, context) == 0x90));
static_assert(sizeof(void*) != 8 || (offsetof(ggml_backend_device, reg) == 0x78 && offsetof(ggml_backend_device, context) == 0x80));
static_assert(sizeof(void*) != 8 || (offsetof(ggml_backend_reg, iface) == 8 && offsetof(ggml_backend_reg, context) == 0x28));
