// Profiler: durations of commands by label, from GPU timestamps, or from wall times that the executor measures where
// the queue has no timestamps. Does nothing unless enabled. Not thread-safe.
#pragma once

#include <list>

#include "recorder.hpp"

namespace kvant {

class Profiler {
 public:
  Profiler(Device& device, const DevicePlan& plan, bool enabled) : device_(device), plan_(plan), enabled_(enabled) {}
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  bool uses_timestamps() const { return enabled_ && plan_.timestamps; }
  bool uses_wall_times() const { return enabled_ && !plan_.timestamps; }

  // One batch per submit: begin, then after_command for each command, then submitted or dropped, which cannot fail.
  Status begin(Recorder& recorder, std::size_t commands);
  void after_command(Recorder& recorder, const char* label);
  void submitted(std::uint64_t ticket);
  void dropped();

  // Makes room for the label, before the work whose time is added after it: that then cannot fail.
  void expect(const char* label) { (void)entry(label); }
  void add_wall_time(const char* label, double microseconds) { add(label, microseconds); }
  // Reads the timestamps of finished submits.
  void collect(std::uint64_t completed);
  // Sums since the last take.
  std::vector<ProfileEntry> take();

 private:
  struct Batch {
    VkQueryPool pool = VK_NULL_HANDLE;
    std::uint32_t capacity = 0;
    std::uint64_t ticket = 0;
    std::vector<const char*> labels;
  };
  // Batches go from list to list, which takes no memory.
  using Batches = std::list<Batch>;
  ProfileEntry& entry(const char* label);
  void add(const char* label, double microseconds);
  void read(const Batch& batch);

  Device& device_;
  const DevicePlan& plan_;
  bool enabled_;
  Batches current_;  // one while a submit is recorded
  Batches pending_, free_;
  std::vector<std::uint64_t> ticks_;
  std::vector<ProfileEntry> totals_;
};

}  // namespace kvant
