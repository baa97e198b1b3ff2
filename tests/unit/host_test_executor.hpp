// TestExecutor: the CPU executor with two additions for the tests of host/: it keeps a copy of every list that was
// submitted, and makes the n-th allocation, staging or submit fail.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "cpu_executor.hpp"

namespace kvant::test {

class TestExecutor final : public Executor {
 public:
  TestExecutor() {
    ExecutorLimits limits = cpu.limits();
    limits.max_staging_bytes = 1u << 20;
    cpu.set_limits(limits);
  }

  reference::CpuExecutor cpu;
  std::vector<CommandList> lists;
  // Calls until the one that fails; negative = none. One-shot.
  int fail_create = -1, fail_stage = -1, fail_submit = -1;
  std::map<std::uint64_t, std::uint64_t> live;  // device buffers and their sizes

  const ExecutorLimits& limits() const override { return cpu.limits(); }
  AttendConfig attend_config(const AttendShape& shape) const override { return cpu.attend_config(shape); }
  PageKernelConfig page_kernel_config(KernelId kernel) const override { return cpu.page_kernel_config(kernel); }
  Result<BufferId> create_buffer(std::uint64_t size, BufferKind kind) override {
    if (due(fail_create)) return Status(StatusCode::resource_exhausted, "no memory, as the test asked");
    Result<BufferId> buffer = cpu.create_buffer(size, kind);
    if (buffer.ok()) live[static_cast<std::uint64_t>(buffer.value())] = size;
    return buffer;
  }
  std::byte* mapped(BufferId buffer) const override { return cpu.mapped(buffer); }
  void destroy_buffer(BufferId buffer) override {
    live.erase(static_cast<std::uint64_t>(buffer));
    cpu.destroy_buffer(buffer);
  }
  Result<BufferId> import_buffer(std::uint64_t handle, std::uint64_t size) override {
    return cpu.import_buffer(handle, size);
  }
  Result<Staging> stage(std::uint64_t size, BufferKind kind) override {
    if (due(fail_stage)) return Status(StatusCode::resource_exhausted, "no staging, as the test asked");
    return cpu.stage(size, kind);
  }
  Result<Ticket> submit(const CommandList& list) override {
    if (due(fail_submit)) return Status(StatusCode::data_loss, "submit failed, as the test asked");
    lists.push_back(list);
    return cpu.submit(list);
  }
  // Runs at once: enough to test what the cache records, though not when.
  Result<Ticket> record(const CommandList& list, void*) override { return submit(list); }
  Status wait(Ticket ticket) override { return cpu.wait(ticket); }

  std::uint64_t live_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& [id, size] : live) bytes += size;
    return bytes;
  }
  std::size_t count(KernelId kernel) const {
    std::size_t n = 0;
    for (const CommandList& list : lists)
      for (const Command& command : list.commands)
        n += command.type == Command::Type::dispatch && command.dispatch.kernel == kernel;
    return n;
  }

 private:
  static bool due(int& countdown) { return countdown >= 0 && countdown-- == 0; }
};

}  // namespace kvant::test
