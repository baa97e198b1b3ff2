// VulkanExecutor: runs command lists on a Device. Not thread-safe: one thread at a time, as Executor says.
//
// Recording into an engine's command buffer: the descriptor sets and staging that a record() uses are held until its
// ticket completes. That ticket is the one of the first submit that the executor makes after it, if need be an empty
// one that a wait() for it makes: a number of its own would be a value that the timeline's semaphore never takes. So
// the engine must have submitted its command buffer, to the same queue, before the executor's next submit() or wait();
// further record() calls may come first. Buffers destroyed meanwhile follow the same rule.
#pragma once

#include "command_pool.hpp"
#include "pipeline_cache.hpp"
#include "profiler.hpp"
#include "staging.hpp"
#include "tuned_configs.hpp"

namespace kvant {

class VulkanExecutor final : public Executor {
 public:
  // `pipeline_data`: a VkPipelineCache's contents or empty. `device` and `plan` outlive the executor.
  static Result<std::unique_ptr<VulkanExecutor>> create(Device& device, const DevicePlan& plan,
                                                        const DeviceOptions& options,
                                                        std::span<const std::byte> pipeline_data);
  ~VulkanExecutor() override;

  const ExecutorLimits& limits() const override { return limits_; }
  AttendConfig attend_config(const AttendShape& shape) const override;
  PageKernelConfig page_kernel_config(KernelId kernel) const override;

  Result<BufferId> create_buffer(std::uint64_t size, BufferKind kind) override;
  std::byte* mapped(BufferId buffer) const override;
  void destroy_buffer(BufferId buffer) override;
  Result<BufferId> import_buffer(std::uint64_t native_handle, std::uint64_t size) override;
  Result<Staging> stage(std::uint64_t size, BufferKind kind) override;
  Result<Ticket> submit(const CommandList& list) override;
  Result<Ticket> record(const CommandList& list, void* native_command_buffer) override;
  Status wait(Ticket ticket) override;

  // Before the first attend_config(); without it, tuning alone chooses.
  void set_tuned(TunedConfigs configs) { tuned_ = std::move(configs); }
  Status wait_all();
  std::vector<ProfileEntry> take_profile();
  PipelineCache& pipelines() { return *pipelines_; }
  const Timeline& timeline() const { return *timeline_; }
  std::uint64_t device_bytes() const { return memory_.bytes(); }

 private:
  VulkanExecutor(Device& device, const DevicePlan& plan, const DeviceOptions& options);

  // A checked dispatch's pipeline and set are found before anything is recorded, so that a bad list changes nothing.
  Status resolve(const CommandList& list);
  Status resolve_dispatch(const Dispatch& dispatch, VkPipeline& pipeline);
  Status check_range(const char* what, const BufferRange& range, std::uint64_t alignment) const;
  Result<VkDescriptorSet> descriptor_set(const Dispatch& dispatch);
  Status ensure_dummy();

  Status record_command(Recorder& recorder, const Command& command, VkPipeline pipeline);
  Status record_list(Recorder& recorder, std::span<const Command> commands, std::span<const VkPipeline> pipelines,
                     bool profile);
  Status submit_part(std::span<const Command> commands, std::span<const VkPipeline> pipelines, bool profile);
  Ticket submitted();                       // next_ticket_, which the device now has
  void mark_used(const CommandList& list);  // by the submit next_ticket_
  void poll();

  Device& device_;
  const DevicePlan& plan_;
  ExecutorLimits limits_;
  Memory memory_;
  Profiler profiler_;
  std::unique_ptr<Timeline> timeline_;
  std::unique_ptr<PipelineCache> pipelines_;
  std::unique_ptr<CommandPool> commands_;
  std::unique_ptr<DescriptorPool> sets_;
  std::unique_ptr<BufferTable> buffers_;
  std::unique_ptr<StagingPool> upload_, readback_;
  std::uint64_t staging_ring_bytes_ = 0;

  std::uint64_t next_ticket_ = 1;  // of the next submit
  bool recorded_ = false;          // next_ticket_ was given to a recorded list
  std::uint64_t completed_ = 0;    // as of the last poll
  BufferId dummy_ = BufferId::none;  // stands in for absent bindings
  std::uint64_t dummy_slot_ = 0;
  bool host_reads_ = false;           // the list at hand fills readback pieces, or may write shared buffers
  TunedConfigs tuned_;
  bool shares_ = false;               // there was a shared buffer
  std::vector<VkPipeline> resolved_;  // one per command of the list at hand
  std::array<BufferRange, kMaxBindings> bound_ranges_{};
  std::uint32_t bound_count_ = 0;
  VkDescriptorSet bound_set_ = VK_NULL_HANDLE;
};

}  // namespace kvant
