// The injector: counts what can fail while a call of the library runs, and makes the n-th of a kind fail. It lives in the
// stand-in for the Vulkan loader, which both the test program and the library use.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define KVANT_FAULTS_API __attribute__((visibility("default")))
#endif

namespace faults {

enum class Kind : std::uint32_t {
  none,
  host_allocation,    // operator new, on the thread that called the library
  worker_allocation,  // operator new, on threads that the library started
  device_allocation,  // vkAllocateMemory: VK_ERROR_OUT_OF_DEVICE_MEMORY
  submit,             // vkQueueSubmit: VK_ERROR_OUT_OF_HOST_MEMORY
  map,                // vkMapMemory: VK_ERROR_MEMORY_MAP_FAILED
  object,             // every other Vulkan call that can fail: VK_ERROR_OUT_OF_HOST_MEMORY
  wait,               // waits and completion queries: VK_ERROR_OUT_OF_HOST_MEMORY
  lost,               // submits, waits and completion queries: VK_ERROR_DEVICE_LOST, from then on always, for that device
  file_write,         // creating, writing, flushing and naming files: ENOSPC
  file_read,          // opening and reading files: EIO
};

// From now on, until the next arm: the n-th event of the kind fails, once; n 0: none, events are counted only.
KVANT_FAULTS_API void arm(Kind kind, std::uint64_t n);
// Events of the armed kind since arm(), and whether the n-th was among them.
KVANT_FAULTS_API std::uint64_t events();
KVANT_FAULTS_API bool fired();

// Events happen only between these two: the test's own doings are none.
KVANT_FAULTS_API void begin_call();
KVANT_FAULTS_API void end_call();

// An event of the kind happens on this thread: whether it must fail.
KVANT_FAULTS_API bool event(Kind kind);
// Marks this thread as the driver's: nothing on it is an event. Threads that Vulkan calls start are such.
KVANT_FAULTS_API void enter_driver();
KVANT_FAULTS_API void leave_driver();
KVANT_FAULTS_API bool in_driver();

// Vulkan objects and memory that were made and not destroyed, through this loader.
KVANT_FAULTS_API std::int64_t live_vulkan_objects();

}  // namespace faults
