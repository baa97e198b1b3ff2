// ProbeExecutor: wraps the executor under test. It forces an attention config, fills fresh device memory with NaN, notes which
// kernels ran, and can tamper with command lists for negative controls.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "executor.hpp"

namespace kvant::conformance {

class ProbeExecutor final : public Executor {
 public:
  explicit ProbeExecutor(Executor& inner) : inner_(inner), limits_(inner.limits()) {}

  void force_config(const std::optional<AttendConfig>& config) { config_ = config; }
  void set_limits(const ExecutorLimits& limits) { limits_ = limits; }
  // Called with a copy of each list before it is submitted.
  void set_tamper(std::function<void(CommandList&)> tamper) { tamper_ = std::move(tamper); }

  // The last dispatch of a kernel whose name starts with "attend_" other than the merge, or the last of all.
  const Dispatch& last_dispatch() const { return last_; }
  std::uint64_t dispatches() const { return dispatches_; }
  const std::vector<BufferId>& device_buffers() const { return device_buffers_; }

  const ExecutorLimits& limits() const override { return limits_; }
  AttendConfig attend_config(const AttendShape& shape) const override;
  PageKernelConfig page_kernel_config(KernelId kernel) const override { return inner_.page_kernel_config(kernel); }
  Result<BufferId> create_buffer(std::uint64_t size, BufferKind kind) override;
  std::byte* mapped(BufferId buffer) const override { return inner_.mapped(buffer); }
  void destroy_buffer(BufferId buffer) override { inner_.destroy_buffer(buffer); }
  Result<BufferId> import_buffer(std::uint64_t native_handle, std::uint64_t size) override {
    return inner_.import_buffer(native_handle, size);
  }
  Result<Staging> stage(std::uint64_t size, BufferKind kind) override { return inner_.stage(size, kind); }
  Result<Ticket> submit(const CommandList& list) override;
  Result<Ticket> record(const CommandList& list, void* native_command_buffer) override {
    return inner_.record(list, native_command_buffer);
  }
  Status wait(Ticket ticket) override { return inner_.wait(ticket); }

 private:
  Executor& inner_;
  ExecutorLimits limits_;
  std::optional<AttendConfig> config_;
  std::function<void(CommandList&)> tamper_;
  Dispatch last_;
  bool last_is_attend_ = false;
  std::uint64_t dispatches_ = 0;
  std::vector<BufferId> device_buffers_;
};

}  // namespace kvant::conformance
