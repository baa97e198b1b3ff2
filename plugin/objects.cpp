// Life and death of the objects behind the handles.
#include "objects.hpp"

#include <chrono>

#include "tier_watch.hpp"

namespace kvant::abi {
namespace {

constexpr std::uint64_t kSequenceBits = 40;
constexpr std::uint64_t kSequenceMask = (std::uint64_t{1} << kSequenceBits) - 1;

void blame_host(const ContextObject& context, const std::string& message) {
  context.log.write(LogLevel::host_misbehaving, message);
}

// A destroy function was given something that is not alive, or of another type: ignored, but not in silence.
void report_dead(std::string_view function, const void* handle, const Status& status) {
  const auto context = std::static_pointer_cast<ContextObject>(root_of(handle));
  if (context != nullptr) context->log.write(LogLevel::warning, text(function, ": ", status.message(), "; ignored"));
}

}  // namespace

InstanceOptions ContextObject::instance_options() {
  InstanceOptions options;
  options.log = log;
  options.validation = validation;
  options.validation_message = [](void* user_data, const char* message) {
    static_cast<ContextObject*>(user_data)->log.write(LogLevel::plugin_misbehaving, message);
  };
  options.validation_user_data = this;
  return options;
}

const char* ContextObject::keep_text(const std::string& text) {
  const std::lock_guard lock(texts_mutex_);
  return texts_.insert(text).first->c_str();
}

Status CallLock::enter() {
  if (std::string objection = tier_objection(*this); !objection.empty()) return precondition(objection);
  if (owner_.load() == std::this_thread::get_id())
    return precondition("the call came from a callback of another call on the same device");
  mutex_.lock();
  owner_.store(std::this_thread::get_id());
  return {};
}

void CallLock::leave() {
  owner_.store(std::thread::id{});
  mutex_.unlock();
}

CacheObject::CacheObject(std::shared_ptr<DeviceObject> parent) : Object(parent), device(std::move(parent)) {
  static std::atomic<std::uint64_t> serial{0};
  mark = (++serial) << kSequenceBits;
}

CacheObject::~CacheObject() {
  store.reset();
  if (cold != nullptr) cold->cold_of_store = false;
}

Result<SequenceId> CacheObject::sequence(kvant_sequence handle, std::string_view name) const {
  if (handle == 0) return invalid(name, " is 0; expected a sequence of this cache");
  const auto id = static_cast<SequenceId>(handle);
  if ((handle & ~kSequenceMask) != mark)
    return not_found(name, " (", hex(handle), ") is not a sequence of this cache");
  if (!cache->sequence_length(id).ok())
    return not_found(name, " (", hex(handle), ") is not a live sequence of this cache");
  return id;
}

void CacheObject::end_step() {
  step_open = false;
  step_sequences.clear();
}

void CacheObject::observe() {
  using std::chrono::duration_cast, std::chrono::milliseconds, std::chrono::steady_clock;
  observed_ms = static_cast<std::uint64_t>(duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count());
  // Two snapshots of one millisecond are one: no time lies between them.
  [[maybe_unused]] const bool taken = monitor.observe(cache->stats(), observed_ms);
}

void CacheObject::observe_if_due() {
  using std::chrono::duration_cast, std::chrono::milliseconds, std::chrono::steady_clock;
  if (observe_interval_ms == 0) return;
  const auto now =
      static_cast<std::uint64_t>(duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count());
  if (now - observed_ms >= observe_interval_ms) observe();
}

StepObject::~StepObject() {
  if (step != nullptr) cache->cache->abort(std::move(step));
}

void destroy_context(const void* handle) {
  const auto context = find<ContextObject>(handle, "context");
  if (!context.ok()) return report_dead("context_destroy", handle, context.status());
  const Removal removal = remove_object(handle, HandleType::context);
  if (removal.children != 0)
    blame_host(*context.value(), text("context_destroy: devices of the context are still open (", removal.children, "); ignored"));
}

void destroy_device(const void* handle) {
  auto found = find<DeviceObject>(handle, "device");
  if (!found.ok()) return report_dead("device_close", handle, found.status());
  const std::shared_ptr<ContextObject> context = found.value()->context;
  if (const Status status = found.value()->lock.enter(); !status.ok())
    return blame_host(*context, "device_close: " + status.message() + "; ignored");
  const Removal removal = remove_object(handle, HandleType::device);
  found.value()->lock.leave();
  if (removal.children != 0)
    blame_host(*context, text("device_close: the device has ", removal.children, " live caches; ignored"));
}

void destroy_cache(const void* handle) {
  auto found = find<CacheObject>(handle, "cache");
  if (!found.ok()) return report_dead("cache_destroy", handle, found.status());
  const std::shared_ptr<DeviceObject> device = found.value()->device;
  if (const Status status = device->lock.enter(); !status.ok())
    return blame_host(*device->context, "cache_destroy: " + status.message() + "; ignored");
  Removal removal = remove_object(handle, HandleType::cache);
  // The cache frees its buffers while the lock is held.
  found = Status{};
  removal.object.reset();
  device->lock.leave();
  if (removal.children != 0) blame_host(*device->context, "cache_destroy: the cache has an open step; ignored");
}

void destroy_step(const void* handle) {
  auto found = find<StepObject>(handle, "step");
  if (!found.ok()) return report_dead("step_abort", handle, found.status());
  const std::shared_ptr<CacheObject> cache = found.value()->cache;
  if (const Status status = cache->device->lock.enter(); !status.ok())
    return blame_host(*cache->device->context, "step_abort: " + status.message() + "; ignored");
  Removal removal = remove_object(handle, HandleType::step);
  if (removal.object != nullptr) cache->end_step();
  found = Status{};
  removal.object.reset();
  cache->device->lock.leave();
}

}  // namespace kvant::abi
