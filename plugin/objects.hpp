// The objects behind the handles: context, device, cache, step. Children keep their parents alive; the parents' handles cannot
// be destroyed first. A device and all below it form one lock domain.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "block_reuse.hpp"
#include "cache.hpp"
#include "config.hpp"
#include "handles.hpp"
#include "monitor.hpp"
#include "step.hpp"
#include "tensor_store.hpp"

namespace kvant::abi {

// What kvant_device_info points at; lives as long as the object that describes the device.
struct DeviceFacts {
  std::string name, driver, reasons, json;
  std::uint32_t type = 0, vendor_id = 0, device_id = 0, api_version = 0, tier = 0;
  std::uint64_t memory_size = 0;
  bool usable = false;
};
DeviceFacts describe_plan(const DevicePlan& plan);
kvant_device_info device_info_values(const DeviceFacts& facts);

class ContextObject : public Object {
 public:
  static constexpr HandleType kHandleType = HandleType::context;
  using Handle = kvant_context;

  ContextObject() : Object(nullptr) {}

  Log log;
  bool validation = false;
  std::unique_ptr<Instance> instance;  // null: `instance_status` says why
  Status instance_status;
  std::vector<DeviceFacts> devices;
  std::string recommended;             // of the Vulkan extension

  InstanceOptions instance_options();
  // The text at a place where it stays as long as the context; equal ones at one place. Any thread.
  const char* keep_text(const std::string& text);

 private:
  std::mutex texts_mutex_;
  std::unordered_set<std::string> texts_;  // nodes never move
};

// One at a time inside a device and what was made of it. Other threads wait; the same thread, coming back through a callback,
// is refused, because the state below is in the middle of a call.
class CallLock {
 public:
  Status enter();
  void leave();

 private:
  std::mutex mutex_;
  std::atomic<std::thread::id> owner_{};
};

class DeviceObject : public Object {
 public:
  static constexpr HandleType kHandleType = HandleType::device;
  using Handle = kvant_device;

  explicit DeviceObject(std::shared_ptr<ContextObject> parent) : Object(parent), context(std::move(parent)) {}

  std::shared_ptr<ContextObject> context;
  std::unique_ptr<DeviceContext> device;
  DeviceFacts facts;
  bool borrowed = false, profiling = false;
  CallLock lock;
  std::vector<ProfileEntry> profile;             // of the last device_profile
  std::vector<ProfileEntry> pending_profile;     // taken from the device by other calls since then
  std::unordered_set<std::string> labels;        // strings that profile entries point at; nodes never move

  Executor& executor() { return device->executor(); }
  DeviceObject& owner() { return *this; }
};

class CacheObject : public Object {
 public:
  static constexpr HandleType kHandleType = HandleType::cache;
  using Handle = kvant_cache;

  explicit CacheObject(std::shared_ptr<DeviceObject> parent);
  ~CacheObject() override;

  std::shared_ptr<DeviceObject> device;
  std::unique_ptr<Cache> cache;
  std::uint64_t mark = 0;                        // upper bits of this cache's sequences
  bool cold_of_store = false;                    // some store moves prefixes here
  std::vector<LoadedSequence> loaded;            // by the last load of a state
  std::string stats_text, plan_text, config_text;  // as last asked for
  std::optional<CacheConfig> config;             // that it was created from
  std::uint64_t observe_interval_ms = 0;         // between the monitor's own snapshots; 0: none
  std::uint64_t observed_ms = 0;
  Monitor monitor;
  std::shared_ptr<CacheObject> cold;             // of the store
  std::unique_ptr<TensorStore> store;            // null until store_open
  bool step_open = false;
  std::vector<StepEntry> step_entries;           // of the last step_plan
  std::vector<kvant_sequence> step_sequences;    // of the open step, in order
  std::shared_ptr<BlockReuse> step_blocks = std::make_shared<BlockReuse>();
  bool in_step(kvant_sequence sequence) const {
    return step_open && std::binary_search(step_sequences.begin(), step_sequences.end(), sequence);
  }

  // A sequence handle carries the cache it came from, so that another cache's is not taken for one of ours.
  Result<SequenceId> sequence(kvant_sequence handle, std::string_view name) const;
  void end_step();
  void observe();         // a snapshot for the monitor
  void observe_if_due();  // by observe_interval_ms
  DeviceObject& owner() { return *device; }
};

class StepObject : public Object {
 public:
  static constexpr HandleType kHandleType = HandleType::step;
  using Handle = kvant_step;

  explicit StepObject(std::shared_ptr<CacheObject> parent) : Object(parent), cache(std::move(parent)) {}
  ~StepObject() override;

  std::shared_ptr<CacheObject> cache;
  std::unique_ptr<Step> step;
  std::uint64_t fresh_tokens = 0, queries = 0;
  std::string causal_objection;                  // why a causal run is impossible; empty: it is possible

  DeviceObject& owner() { return *cache->device; }
};

// An object found by its handle, with its device's lock held.
template <typename T>
class Access {
 public:
  explicit Access(std::shared_ptr<T> object) : object_(std::move(object)) {}
  Access(Access&& other) noexcept : object_(std::move(other.object_)), held_(std::exchange(other.held_, false)) {}
  Access& operator=(Access&&) = delete;
  ~Access() { release(); }

  Status enter(std::string_view name) {
    KVANT_TRY(object_->owner().lock.enter());
    held_ = true;
    if (!is_live(*object_)) return not_found(name, " was destroyed by another thread during the call");
    return {};
  }
  void release() {
    if (!held_) return;
    held_ = false;
    object_->owner().lock.leave();
  }
  T* operator->() const { return object_.get(); }
  T& operator*() const { return *object_; }
  const std::shared_ptr<T>& object() const { return object_; }

 private:
  std::shared_ptr<T> object_;
  bool held_ = false;
};

template <typename T>
Result<Access<T>> access(const void* handle, std::string_view name) {
  KVANT_ASSIGN(std::shared_ptr<T> object, find<T>(handle, name));
  Access<T> result(std::move(object));
  KVANT_TRY(result.enter(name));
  return result;
}

// Destroys by handle: NULL is nothing; living children, an unknown handle and a call from inside a callback are reported to
// the log that can be reached, and ignored.
void destroy_context(const void* handle);
void destroy_device(const void* handle);
void destroy_cache(const void* handle);
void destroy_step(const void* handle);

}  // namespace kvant::abi
