// Machine: one Vulkan device as ggml's devices, buffers and backends share it. Opened when first needed, never closed: ggml keeps
// devices to the end of the process. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "backend.hpp"
#include "interface.hpp"
#include "work.hpp"

namespace kvant::ggml {

class Machine {
 public:
  Machine(Instance& instance, std::uint32_t index, std::uint32_t number);

  const std::string& name() const { return name_; }                // "KVANT0"
  const std::string& host_name() const { return host_name_; }      // "KVANT0_Host"
  const std::string& description() const { return description_; }  // the device's and its driver's
  std::uint64_t memory_total() const { return memory_total_; }
  std::uint64_t memory_held();

  // Null, after a line in ggml's log, when the device cannot be opened.
  const ExecutorLimits* limits();

  Result<BufferId> create_buffer(std::uint64_t size, BufferKind kind);
  std::byte* mapped(BufferId buffer);  // of a shared buffer, or of the device's where it is mapped; else null
  void destroy_buffer(BufferId buffer);
  // These gather until something is computed, read or waited for.
  Status write(BufferId buffer, std::uint64_t offset, const void* data, std::uint64_t size);
  Status read(BufferId buffer, std::uint64_t offset, void* data, std::uint64_t size);
  Status fill(BufferId buffer, std::uint64_t offset, std::uint64_t size, std::uint8_t value);
  Status copy(BufferId source, std::uint64_t source_offset, BufferId destination, std::uint64_t offset, std::uint64_t size);
  // A tensor comes to lie at these bytes.
  Status place(BufferId buffer, std::uint64_t offset, std::uint64_t size);
  // Submits; waits only where the graph reads or writes shared memory, which the processor uses again as soon as this returns.
  Status compute(ggml_cgraph* graph);
  Status wait();

 private:
  bool open();  // with the lock held
  template <typename F>
  Status guarded(F&& function);
  Status run(ggml_cgraph* graph, bool* shared);
  // Bytes of a tensor that are moved at a time.
  std::uint64_t piece(BufferId buffer, std::uint64_t offset, std::uint64_t left);

  Instance& instance_;
  std::uint32_t index_ = 0;
  std::string name_, host_name_, description_;
  std::uint64_t memory_total_ = 0;
  std::mutex mutex_;  // guards what follows
  bool tried_ = false;
  std::unique_ptr<DeviceContext> context_;
  std::unique_ptr<Work> work_;
};

}  // namespace kvant::ggml
