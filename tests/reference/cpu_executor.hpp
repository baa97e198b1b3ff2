// CpuExecutor: the Executor that runs command lists on host memory by the reference kernels. It is strict where a device is
// not: bindings are bounds-checked, buffers have guard zones, and commands between two barriers run in reverse order, so that
// a missing barrier changes the result. Single-threaded.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "cpu_memory.hpp"
#include "executor.hpp"
#include "kernels.hpp"

namespace kvant::reference {

class CpuExecutor final : public Executor {
 public:
  CpuExecutor();

  // Test controls. Without a config the executor picks a plain one for the shape.
  void set_limits(const ExecutorLimits& limits) { limits_ = limits; }
  void set_attend_config(const std::optional<AttendConfig>& config) { config_ = config; }
  void set_mutation(Mutation mutation) { mutation_ = mutation; }
  // Tests may look into and change any buffer; null if it does not exist.
  GuardedBuffer* buffer(BufferId id);
  std::uint64_t submits() const { return next_ticket_ - 1; }

  const ExecutorLimits& limits() const override { return limits_; }
  AttendConfig attend_config(const AttendShape& shape) const override;
  PageKernelConfig page_kernel_config(KernelId kernel) const override;
  Result<BufferId> create_buffer(std::uint64_t size, BufferKind kind) override;
  std::byte* mapped(BufferId) const override { return nullptr; }  // no kind is told apart
  void destroy_buffer(BufferId buffer) override;
  Result<BufferId> import_buffer(std::uint64_t native_handle, std::uint64_t size) override;
  Result<Staging> stage(std::uint64_t size, BufferKind kind) override;
  Result<Ticket> submit(const CommandList& list) override;
  Result<Ticket> record(const CommandList& list, void* native_command_buffer) override;
  Status wait(Ticket ticket) override;

 private:
  Status run_command(const Command& command);
  Status run_dispatch(const Command& command);
  Status check_guards() const;
  BufferId add_buffer(std::uint64_t size);

  ExecutorLimits limits_;
  std::optional<AttendConfig> config_;
  Mutation mutation_ = Mutation::none;
  std::map<std::uint64_t, std::unique_ptr<GuardedBuffer>> buffers_;
  std::map<std::uint64_t, std::uint64_t> staged_;  // staging buffer -> submits since; the ring takes old ones back
  std::uint64_t next_buffer_ = 1;
  std::uint64_t next_ticket_ = 1;
};

}  // namespace kvant::reference
