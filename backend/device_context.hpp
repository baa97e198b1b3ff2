// VulkanContext: the one DeviceContext. Ties plan, device, executor and what is kept of pipelines together.
#pragma once

#include <chrono>
#include <mutex>

#include "pipeline_blob.hpp"
#include "pipeline_list.hpp"
#include "pipeline_warmer.hpp"
#include "vulkan_executor.hpp"

namespace kvant {

class VulkanContext final : public DeviceContext {
 public:
  // Narrows, plans, creates the VkDevice and the executor.
  static Result<std::unique_ptr<DeviceContext>> open(std::shared_ptr<InstanceHandle> instance,
                                                     VkPhysicalDevice physical, DeviceSnapshot snapshot,
                                                     const DeviceOptions& options);
  static Result<std::unique_ptr<DeviceContext>> borrow(std::shared_ptr<InstanceHandle> instance,
                                                       const BorrowedDevice& borrowed, DeviceSnapshot snapshot,
                                                       const DeviceOptions& options);
  ~VulkanContext() override;

  const DeviceSnapshot& snapshot() const override { return plan_.snapshot; }
  const DevicePlan& plan() const override { return plan_; }
  std::span<const std::string_view> active_quirks() const override { return plan_.quirks; }
  Executor& executor() override { return *executor_; }
  std::vector<ProfileEntry> take_profile() override { return executor_->take_profile(); }
  std::uint64_t device_bytes() const override { return executor_->device_bytes(); }
  bool lost() const override { return device_->lost(); }
  TimelinePoint timeline() const override;
  Status wait_all() override { return executor_->wait_all(); }

  PipelineCache& pipelines() { return executor_->pipelines(); }
  BlobOutcome blob_outcome() const { return blob_outcome_; }
  Device& device() { return *device_; }

 private:
  VulkanContext() = default;
  Status plan_device(DeviceSnapshot snapshot, const DeviceOptions& options);
  Status start(const DeviceOptions& options);
  PipelineList load_pipelines(const DeviceOptions& options);
  void load_tuned_configs(const DeviceOptions& options);
  void save_pipelines();

  DevicePlan plan_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<VulkanExecutor> executor_;
  std::string blob_path_;  // empty: none
  std::mutex blob_mutex_;
  std::uint64_t blob_saved_ = 0;  // pipelines compiled on need when the blob was last written
  std::vector<PipelineKey> listed_;  // that the blob had
  std::chrono::steady_clock::time_point blob_time_;
  BlobOutcome blob_outcome_ = BlobOutcome::absent;
  std::unique_ptr<PipelineWarmer> warmer_;  // last: it uses the executor's pipelines
};

}  // namespace kvant
