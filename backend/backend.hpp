// The backend's face towards host/ and plugin/: find devices, open or borrow one, get its Executor. No Vulkan header here.
// Thread rule: an Instance may be used from any thread; a DeviceContext from one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device_plan.hpp"
#include "device_snapshot.hpp"
#include "executor.hpp"
#include "log.hpp"
#include "quirks.hpp"
#include "status.hpp"

namespace kvant {

struct InstanceOptions {
  Log log;
  bool validation = false;              // enable VK_LAYER_KHRONOS_validation with synchronization checks if present
  void (*validation_message)(void* user_data, const char* message) = nullptr;
  void* validation_user_data = nullptr;
};

struct DeviceOptions {
  // JSON object that narrows the snapshot (never widens it): {"fp16": false, "subgroup_size": 4, "max_binding_bytes": ...}.
  // Empty: the environment variable KVANT_CAPABILITIES (a path or a JSON text) if set.
  std::string capability_override;
  // Quirks forced by name: "+name" or "-name", comma-separated. Empty: KVANT_QUIRKS if set.
  std::string quirks;
  // Folder of the on-disk pipeline cache; empty: none.
  std::string pipeline_cache_folder;
  bool profiling = false;               // timestamps around every command
  std::uint32_t pipeline_save_seconds = 10;  // least time between two writes of the pipeline cache while compiling
  std::uint64_t memory_limit = 0;       // bytes of device memory that the executor may hold; 0 = no own limit
};

// The engine's Vulkan objects, as opaque values. Not owned; they outlive the DeviceContext.
struct BorrowedDevice {
  void* get_instance_proc_addr = nullptr;
  void* instance = nullptr;
  void* physical_device = nullptr;
  void* device = nullptr;
  std::uint32_t queue_family = 0, queue_index = 0;
  std::vector<std::string> enabled_extensions;
  const void* enabled_features = nullptr;           // VkPhysicalDeviceFeatures2 chain that the device was created with, or null
  void (*lock_queue)(void* user_data, std::uint32_t family, std::uint32_t index) = nullptr;
  void (*unlock_queue)(void* user_data, std::uint32_t family, std::uint32_t index) = nullptr;
  void* user_data = nullptr;
};

// Durations of the profiled commands since the last take, summed by label.
struct ProfileEntry {
  std::string label;
  std::uint64_t count = 0;
  double microseconds = 0.0;
};

class DeviceContext {
 public:
  virtual ~DeviceContext() = default;
  virtual const DeviceSnapshot& snapshot() const = 0;   // after the override
  virtual const DevicePlan& plan() const = 0;
  virtual std::span<const std::string_view> active_quirks() const = 0;
  virtual Executor& executor() = 0;
  virtual std::vector<ProfileEntry> take_profile() = 0;  // waits for submitted work; empty without profiling
  virtual std::uint64_t device_bytes() const = 0;        // device memory held by the executor
  virtual bool lost() const = 0;
  // Own submits, for engines that wait on the device: the last one signals `value`. Semaphore 0: no timeline semaphores.
  struct TimelinePoint {
    std::uint64_t semaphore = 0, value = 0;
  };
  virtual TimelinePoint timeline() const = 0;
  virtual Status wait_all() = 0;                         // blocks until every submit so far has completed
};

class Instance {
 public:
  // Opens the Vulkan loader at run time (libvulkan.so.1). Errors: unavailable, when there is no loader or no driver.
  static Result<std::unique_ptr<Instance>> create(const InstanceOptions& options);
  virtual ~Instance() = default;

  // Every physical device, usable or not; DevicePlan says why one is not.
  virtual std::span<const DeviceSnapshot> devices() const = 0;
  // Index of the best usable device: discrete, integrated, virtual, CPU; then by order. Errors: unavailable, listing each
  // rejected device with its reasons.
  virtual Result<std::uint32_t> best_device() const = 0;
  virtual Result<std::unique_ptr<DeviceContext>> open(std::uint32_t device_index, const DeviceOptions& options) = 0;
};

Result<std::unique_ptr<DeviceContext>> borrow_device(const BorrowedDevice& device, const DeviceOptions& options,
                                                     const InstanceOptions& instance_options);

}  // namespace kvant
