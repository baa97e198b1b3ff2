/* Extension "kvant.vulkan/1": kvant inside the engine's own Vulkan device. Handles are declared opaque here, so that neither
 * side needs the other's Vulkan headers; non-dispatchable handles travel as uint64_t. */
#ifndef KVANT_EXT_VULKAN_H
#define KVANT_EXT_VULKAN_H

#include "kvant.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KVANT_EXT_VULKAN "kvant.vulkan/1"

struct VkInstance_T;
struct VkPhysicalDevice_T;
struct VkDevice_T;
struct VkCommandBuffer_T;

/* The engine's objects; not owned; they outlive the kvant_device. Nothing is assumed beyond core Vulkan of the device's version and
 * what enabled_extensions and enabled_features show. vulkanMemoryModel is enabled with vulkanMemoryModelDeviceScope or not at all:
 * atomics have device scope. kvant never waits for the whole device or queue, only for its own work. */
typedef struct kvant_vulkan_device_args {
  size_t struct_size;
  const kvant_next* next;
  void* get_instance_proc_addr;              /* PFN_vkGetInstanceProcAddr */
  struct VkInstance_T* instance;
  struct VkPhysicalDevice_T* physical_device;
  struct VkDevice_T* device;
  uint32_t queue_family;                     /* with VK_QUEUE_COMPUTE_BIT */
  uint32_t queue_index;
  uint32_t enabled_extension_count;
  uint32_t reserved;
  const char* const* enabled_extensions;     /* of the device */
  const void* enabled_features;              /* VkPhysicalDeviceFeatures2 chain the device was created with; NULL: none */
  void (*lock_queue)(void* user_data, uint32_t queue_family, uint32_t queue_index);    /* NULL: kvant has the queue alone */
  void (*unlock_queue)(void* user_data, uint32_t queue_family, uint32_t queue_index);
  void* user_data;
  const kvant_device_args* options;          /* NULL: defaults; device_index is ignored */
} kvant_vulkan_device_args;

/* Chained to kvant_run_args.next: record this layer into the engine's command buffer instead of submitting it. All tensors
 * must be VkBuffers. The engine orders earlier writes of q, k, v before (to COMPUTE_SHADER / SHADER_READ) and reads of out
 * after (from COMPUTE_SHADER / SHADER_WRITE); kvant puts the barriers in between. Submit the command buffer once, to the borrowed
 * queue, before step_commit and before any other call that may make this device submit or wait (anything but a recorded
 * step_run); it need not have finished by then. Only for steps of a borrowed device. */
#define KVANT_NEXT_VULKAN_RECORD 0x10001u
typedef struct kvant_vulkan_record {
  size_t struct_size;
  const kvant_next* next;
  uint32_t type;                             /* KVANT_NEXT_VULKAN_RECORD */
  uint32_t flags;
  struct VkCommandBuffer_T* command_buffer;
} kvant_vulkan_record;

typedef struct kvant_ext_vulkan {
  size_t struct_size;
  /* Names of device extensions and the feature bits that kvant can use, so that an engine can create a suitable device:
   * a JSON object {"extensions": [...], "features": [...]}; all optional. [any-thread] */
  const char* (*recommended)(kvant_context* context);
  kvant_error* (*device_import)(kvant_context* context, const kvant_vulkan_device_args* args, kvant_device** out_device);
  /* Timeline of kvant's own submits on this device: semaphore handle (0 where the device has no timeline semaphores) and the
   * value that the last submit signals. [one-thread-per-object: device] */
  kvant_error* (*device_timeline)(kvant_device* device, uint64_t* out_semaphore, uint64_t* out_value);
  /* Blocks until every submit of this device so far has completed. [one-thread-per-object: device] */
  kvant_error* (*device_wait)(kvant_device* device);
} kvant_ext_vulkan;

#ifdef __cplusplus
}
#endif
#endif
