// device_profile, device_profile_entry and device_measure_copy: where the device's time goes, and a copy as the yardstick.
#include <algorithm>
#include <chrono>

#include "api.hpp"
#include "boundary.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

constexpr int kCopies = 5;
constexpr const char* kCopyLabel = "measure_copy";

void merge_profile(std::vector<ProfileEntry>& into, const std::vector<ProfileEntry>& more) {
  for (const ProfileEntry& entry : more) {
    const auto same = std::find_if(into.begin(), into.end(), [&](const ProfileEntry& e) { return e.label == entry.label; });
    if (same == into.end()) {
      into.push_back(entry);
    } else {
      same->count += entry.count;
      same->microseconds += entry.microseconds;
    }
  }
}

// Device time of the copies since the last call; what else the device counted is kept for device_profile.
double take_copy_microseconds(DeviceObject& device) {
  double microseconds = 0.0;
  for (const ProfileEntry& entry : device.device->take_profile()) {
    if (entry.label == kCopyLabel) {
      microseconds += entry.microseconds;
    } else {
      merge_profile(device.pending_profile, {entry});
    }
  }
  return microseconds;
}

// Two device buffers that go with the call.
class CopyBuffers {
 public:
  explicit CopyBuffers(Executor& executor) : executor_(executor) {}
  ~CopyBuffers() {
    for (const BufferId buffer : ids_) executor_.destroy_buffer(buffer);
  }
  CopyBuffers(const CopyBuffers&) = delete;
  CopyBuffers& operator=(const CopyBuffers&) = delete;

  Status create(std::uint64_t size) {
    for (BufferId& id : ids_) {
      KVANT_ASSIGN(id, executor_.create_buffer(size, BufferKind::device));
    }
    return {};
  }
  BufferId source() const { return ids_[0]; }
  BufferId destination() const { return ids_[1]; }

 private:
  Executor& executor_;
  BufferId ids_[2] = {BufferId::none, BufferId::none};
};

Status run_and_wait(Executor& executor, const CommandList& list) {
  KVANT_ASSIGN(const Ticket ticket, executor.submit(list));
  return executor.wait(ticket);
}

Result<double> best_copy_seconds(DeviceObject& device, std::uint64_t size) {
  Executor& executor = device.executor();
  CopyBuffers buffers(executor);
  KVANT_TRY(buffers.create(size));
  CommandList list;
  // Untouched memory may be all one page; written memory is not.
  list.add_fill({{buffers.source(), 0, size}, 0x3C003C00u}, "measure_fill", false);
  list.add_fill({{buffers.destination(), 0, size}, 0u}, "measure_fill", false);
  KVANT_TRY(run_and_wait(executor, list));
  list.clear();
  list.add_copy({buffers.source(), 0, buffers.destination(), 0, size}, kCopyLabel, false);

  const bool timestamps = device.profiling && device.device->plan().timestamps;
  double best = 0.0;
  for (int i = 0; i < kCopies; ++i) {
    if (timestamps) take_copy_microseconds(device);
    const auto begin = std::chrono::steady_clock::now();
    KVANT_TRY(run_and_wait(executor, list));
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (timestamps) {
      const double measured = take_copy_microseconds(device) * 1e-6;
      if (measured > 0.0) seconds = measured;
    }
    if (best == 0.0 || seconds < best) best = seconds;
  }
  return best;
}

}  // namespace

kvant_error* device_profile(kvant_device* device, std::uint32_t* out_count) {
  return guard("device_profile", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_TRY(check_pointer(out_count, "out_count", "a place for the number of labels"));
    if (!object->profiling) return precondition("the device was opened without enable_profiling");
    std::vector<ProfileEntry> profile = std::move(object->pending_profile);
    object->pending_profile.clear();
    merge_profile(profile, object->device->take_profile());
    for (const ProfileEntry& entry : profile) object->labels.insert(entry.label);
    object->profile = std::move(profile);
    *out_count = static_cast<std::uint32_t>(object->profile.size());
    return {};
  });
}

kvant_error* device_profile_entry(kvant_device* device, std::uint32_t index, kvant_profile_entry* entry) {
  return guard("device_profile_entry", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_TRY(check_output(entry, "entry"));
    if (!object->profiling) return precondition("the device was opened without enable_profiling");
    if (index >= object->profile.size())
      return invalid("index (", index, ") is not less than the ", object->profile.size(), " labels of the last device_profile");
    const ProfileEntry& figures = object->profile[index];
    kvant_profile_entry values{};
    values.label = object->labels.find(figures.label)->c_str();
    values.count = figures.count;
    values.microseconds = figures.microseconds;
    write_struct(entry, values);
    return {};
  });
}

kvant_error* device_measure_copy(kvant_device* device, std::uint64_t size, double* out_bytes_per_second) {
  return guard("device_measure_copy", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_TRY(check_pointer(out_bytes_per_second, "out_bytes_per_second", "a place for the rate"));
    const std::uint64_t most = object->executor().limits().max_slab_bytes;
    if (size == 0 || size % 4 != 0 || size > most)
      return invalid("size (", size, ") is not a multiple of 4 between 4 and ", most, ", the device's largest buffer");
    KVANT_ASSIGN(const double seconds, best_copy_seconds(*object, size));
    *out_bytes_per_second = static_cast<double>(size) / seconds;
    return {};
  });
}

}  // namespace kvant::abi
