// PipelineCache: PipelineKey -> VkPipeline, compiled on first need or ahead of it. Also owns the one pipeline layout that all kernels
// share (a set of 8 storage buffers, 128 bytes of push constants) and the VkPipelineCache. Thread-safe.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <unordered_map>

#include "device.hpp"
#include "pipeline_key.hpp"
#include "pipeline_statistics.hpp"

namespace kvant {

class PipelineCache {
 public:
  // `initial_data`: contents of a VkPipelineCache, or empty.
  static Result<std::unique_ptr<PipelineCache>> create(Device& device, const DevicePlan& plan,
                                                       std::span<const std::byte> initial_data);
  ~PipelineCache();
  PipelineCache(const PipelineCache&) = delete;
  PipelineCache& operator=(const PipelineCache&) = delete;

  // Errors: unimplemented when the module was not built or the device lacks its needs; invalid_argument when the
  // constants exceed the device; resource_exhausted, internal from the driver. All name the kernel.
  Result<VkPipeline> get(KernelId kernel, const SpecValues& spec);
  // Compiles the pipeline unless it is there, or somebody is at it. Logs nothing, calls nothing back; an error is left to get().
  void warm(const PipelineKey& key);
  // What get() was asked for, in the order of first use, with subgroup_size 0.
  std::vector<PipelineKey> used() const;

  // Compiles the pipeline apart from the cache with statistics captured.
  Result<std::vector<PipelineStatistic>> statistics(KernelId kernel, const SpecValues& spec,
                                                    std::uint32_t subgroup_size);

  VkPipelineLayout layout() const { return layout_; }
  VkDescriptorSetLayout set_layout() const { return set_layout_; }
  // Contents of the VkPipelineCache, for the disk.
  Result<std::vector<std::byte>> data() const;
  // Called after a pipeline was compiled, on the thread that needed it. Set before the first get().
  void set_compiled_callback(std::function<void()> callback) { on_compiled_ = std::move(callback); }
  // Pipelines compiled since creation; of those, the ones that get() had to wait for.
  std::uint64_t compiled() const;
  std::uint64_t compiled_on_need() const;

 private:
  PipelineCache(Device& device, const DevicePlan& plan) : device_(device), plan_(plan) {}
  Status check(const PipelineKey& key) const;
  Result<VkShaderModule> make_module(const PipelineKey& key) const;
  Result<VkPipeline> compile(const PipelineKey& key, VkPipelineCreateFlags flags);
  // By the thread that has put `key` into pipelines_ without a pipeline: compiles it outside of the lock, so that others go on.
  Result<VkPipeline> fill_place(const PipelineKey& key);

  Device& device_;
  const DevicePlan& plan_;
  VkDescriptorSetLayout set_layout_ = VK_NULL_HANDLE;
  VkPipelineLayout layout_ = VK_NULL_HANDLE;
  VkPipelineCache cache_ = VK_NULL_HANDLE;
  std::function<void()> on_compiled_;

  struct Place {
    VkPipeline pipeline = VK_NULL_HANDLE;  // null while a thread compiles it
    bool used = false;                     // by get()
  };
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable done_;  // a place was filled or given up
  std::unordered_map<PipelineKey, Place, PipelineKeyHash> pipelines_;
  std::vector<PipelineKey> used_;
  std::uint64_t compiled_ = 0, compiled_on_need_ = 0;
};

}  // namespace kvant
