#include "vulkan_executor.hpp"

#include <sys/sysinfo.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "rollback.hpp"
#include "tuning.hpp"

namespace kvant {
namespace {

constexpr std::uint64_t kStagingRingBytes = 16ULL << 20;
constexpr std::uint64_t kMinStagingRingBytes = 64ULL << 10;
constexpr std::uint64_t kMaxStagingBytes = 1ULL << 30;
constexpr std::uint64_t kDummySlots = 256;

bool same_ranges(const std::array<BufferRange, kMaxBindings>& a, const std::array<BufferRange, kMaxBindings>& b,
                 std::uint32_t count) {
  return std::equal(a.begin(), a.begin() + count, b.begin(), [](const BufferRange& x, const BufferRange& y) {
    return x.buffer == y.buffer && x.offset == y.offset && x.size == y.size;
  });
}

bool is_absent(const BufferRange& range) { return range.buffer == BufferId::none || range.size == 0; }

bool is_empty(const Command& command) {
  switch (command.type) {
    case Command::Type::dispatch:
      return std::any_of(command.dispatch.groups.begin(), command.dispatch.groups.end(),
                         [](std::uint32_t n) { return n == 0; });
    case Command::Type::copy:
      return command.copy.size == 0;
    case Command::Type::fill:
      return command.fill.range.size == 0;
  }
  return true;
}

// The caller's limit, or what the heaps hold. The heap of a CPU driver is a number of its own making (lavapipe 22.3 says 2 GiB
// on any machine), which allocations may exceed; what they cannot exceed is the machine's memory.
std::uint64_t most_device_bytes(const DeviceSnapshot& device, std::uint64_t memory_limit) {
  if (memory_limit != 0) return memory_limit;
  std::uint64_t bytes = 0;
  for (const MemoryHeap& heap : device.heaps) bytes += heap.size;
  if (device.type != DeviceType::cpu) return bytes;
  struct sysinfo machine{};
  if (sysinfo(&machine) != 0) return 0;
  return std::max(bytes, (std::uint64_t{machine.totalram} + machine.totalswap) * machine.mem_unit);
}

}  // namespace

VulkanExecutor::VulkanExecutor(Device& device, const DevicePlan& plan, const DeviceOptions& options)
    : device_(device),
      plan_(plan),
      memory_(device, plan, options.memory_limit),
      profiler_(device, plan, options.profiling) {
  limits_.max_slab_bytes = plan.max_slab_bytes;
  limits_.max_device_bytes = most_device_bytes(plan.snapshot, options.memory_limit);
  limits_.max_binding_bytes = plan.max_binding_bytes;
  limits_.binding_alignment = plan.binding_alignment;
  std::copy(plan.snapshot.max_groups.begin(), plan.snapshot.max_groups.end(), limits_.max_groups);
  limits_.max_staging_bytes = static_cast<std::uint32_t>(std::min(plan.max_slab_bytes, kMaxStagingBytes));
  limits_.max_shared_bytes = max_buffer_bytes(plan, BufferKind::shared);
  limits_.parallel_workgroups = plan.parallel_workgroups;
  // Processors fetch ahead within runs of some KiB, and wait for memory at the beginning of each.
  if (plan.snapshot.type == DeviceType::cpu) limits_.run_tokens = 128;
  staging_ring_bytes_ = std::min(kStagingRingBytes, plan.max_slab_bytes);
  if (options.memory_limit != 0)  // leave most of a small budget to the cache itself
    staging_ring_bytes_ =
        std::min(staging_ring_bytes_, std::max(options.memory_limit / 16 / 256 * 256, kMinStagingRingBytes));
}

Result<std::unique_ptr<VulkanExecutor>> VulkanExecutor::create(Device& device, const DevicePlan& plan,
                                                               const DeviceOptions& options,
                                                               std::span<const std::byte> pipeline_data) {
  std::unique_ptr<VulkanExecutor> executor(new VulkanExecutor(device, plan, options));
  VulkanExecutor& e = *executor;
  KVANT_ASSIGN(e.timeline_, Timeline::create(device, plan.caps.timeline));
  KVANT_ASSIGN(e.pipelines_, PipelineCache::create(device, plan, pipeline_data));
  KVANT_ASSIGN(e.commands_, CommandPool::create(device));
  e.sets_ = std::make_unique<DescriptorPool>(device, e.pipelines_->set_layout());
  e.buffers_ = std::make_unique<BufferTable>(e.memory_, *e.timeline_);
  e.upload_ =
      std::make_unique<StagingPool>(e.memory_, *e.buffers_, *e.timeline_, BufferKind::upload, e.staging_ring_bytes_);
  e.readback_ =
      std::make_unique<StagingPool>(e.memory_, *e.buffers_, *e.timeline_, BufferKind::readback, e.staging_ring_bytes_);
  return executor;
}

VulkanExecutor::~VulkanExecutor() {
  // Nothing may be destroyed under the device's hands; a lost device has no hands.
  if (timeline_ && buffers_ && !device_.lost()) (void)wait_all();
}

AttendConfig VulkanExecutor::attend_config(const AttendShape& shape) const {
  if (const auto tuned = tuned_.find(shape, plan_)) return *tuned;
  return choose_attend_config(shape, plan_);
}
PageKernelConfig VulkanExecutor::page_kernel_config(KernelId kernel) const {
  return choose_page_kernel_config(kernel, plan_);
}

Result<BufferId> VulkanExecutor::create_buffer(std::uint64_t size, BufferKind kind) {
  if (device_.lost()) return device_.lost_status();
  KVANT_ASSIGN(const BufferId id, buffers_->create(size, kind));
  shares_ = shares_ || mapped(id) != nullptr;
  return id;
}

std::byte* VulkanExecutor::mapped(BufferId id) const {
  const Buffer* buffer = buffers_->find(id);
  const bool by_both = buffer != nullptr && (buffer->kind == BufferKind::shared || buffer->kind == BufferKind::unified);
  return by_both ? buffer->mapped : nullptr;
}

void VulkanExecutor::destroy_buffer(BufferId buffer) { buffers_->destroy(buffer); }

Result<BufferId> VulkanExecutor::import_buffer(std::uint64_t native_handle, std::uint64_t size) {
  if (device_.lost()) return device_.lost_status();
  if (native_handle == 0 || size == 0)
    return Status(StatusCode::invalid_argument,
                  "the imported buffer has no handle or no bytes (" + std::to_string(size) + ")");
  return buffers_->import(reinterpret_cast<VkBuffer>(native_handle), size);
}

Result<Staging> VulkanExecutor::stage(std::uint64_t size, BufferKind kind) {
  if (device_.lost()) return device_.lost_status();
  if (size == 0 || size > limits_.max_staging_bytes || (kind != BufferKind::upload && kind != BufferKind::readback)) {
    return Status(StatusCode::invalid_argument, "staging of " + std::to_string(size) + " bytes is not between 1 and " +
                                                    std::to_string(limits_.max_staging_bytes) +
                                                    ", for upload or readback");
  }
  return (kind == BufferKind::upload ? upload_ : readback_)->stage(size, next_ticket_);
}

Status VulkanExecutor::check_range(const char* what, const BufferRange& range, std::uint64_t alignment) const {
  const Buffer* buffer = buffers_->find(range.buffer);
  const auto refused = [&](const std::string& why) {
    return Status(StatusCode::internal,
                  std::string(what) + " [" + std::to_string(range.offset) + ", +" + std::to_string(range.size) + ") " + why);
  };
  if (buffer == nullptr)
    return refused("names buffer " + std::to_string(static_cast<std::uint64_t>(range.buffer)) + ", which does not exist");
  if (range.offset > buffer->size || range.size > buffer->size - range.offset)
    return refused("leaves its buffer of " + std::to_string(buffer->size) + " bytes");
  if (range.offset % alignment != 0)
    return refused("does not start on a multiple of " + std::to_string(alignment) + " bytes");
  return {};
}

Status VulkanExecutor::resolve_dispatch(const Dispatch& dispatch, VkPipeline& pipeline) {
  const KernelInfo& info = kernel_info(dispatch.kernel);
  for (std::size_t i = 0; i < 3; ++i) {
    if (dispatch.groups[i] > limits_.max_groups[i]) {
      return {StatusCode::internal, "workgroups (" + std::to_string(dispatch.groups[i]) + ") of kernel " +
                                        std::string(info.name) + " are above " + std::to_string(limits_.max_groups[i])};
    }
  }
  for (std::uint32_t i = 0; i < info.bindings; ++i) {
    const BufferRange& range = dispatch.bindings[i];
    if (is_absent(range)) continue;
    KVANT_TRY(check_range("binding", range, plan_.snapshot.storage_alignment));
    if (range.size > limits_.max_binding_bytes) {
      return {StatusCode::internal, "binding of " + std::to_string(range.size) + " bytes of kernel " +
                                        std::string(info.name) + " is above " +
                                        std::to_string(limits_.max_binding_bytes)};
    }
  }
  KVANT_TRY(ensure_dummy());
  KVANT_ASSIGN(pipeline, pipelines_->get(dispatch.kernel, dispatch.spec));
  return {};
}

Status VulkanExecutor::resolve(const CommandList& list) {
  resolved_.assign(list.commands.size(), VK_NULL_HANDLE);
  for (std::size_t i = 0; i < list.commands.size(); ++i) {
    const Command& command = list.commands[i];
    if (is_empty(command)) continue;
    switch (command.type) {
      case Command::Type::dispatch:
        KVANT_TRY(resolve_dispatch(command.dispatch, resolved_[i]));
        break;
      case Command::Type::copy: {
        const Copy& copy = command.copy;
        KVANT_TRY(check_range("copy source", {copy.source, copy.source_offset, copy.size}, 1));
        KVANT_TRY(check_range("copy destination", {copy.destination, copy.destination_offset, copy.size}, 1));
        break;
      }
      case Command::Type::fill:
        KVANT_TRY(check_range("fill", command.fill.range, 4));
        if (command.fill.range.size % 4 != 0)
          return {StatusCode::internal,
                  "fill of " + std::to_string(command.fill.range.size) + " bytes is not a multiple of 4"};
        break;
    }
  }
  return {};
}

Status VulkanExecutor::ensure_dummy() {
  if (dummy_ != BufferId::none) return {};
  const std::uint64_t slot = std::max<std::uint64_t>(256, plan_.binding_alignment);
  KVANT_ASSIGN(dummy_, buffers_->create(slot * kDummySlots, BufferKind::upload));
  const Buffer& buffer = *buffers_->find(dummy_);
  std::memset(buffer.mapped, 0, buffer.size);
  return memory_.flush(buffer, 0, buffer.size);
}

Result<VkDescriptorSet> VulkanExecutor::descriptor_set(const Dispatch& dispatch) {
  const std::uint32_t count = kernel_info(dispatch.kernel).bindings;
  if (bound_set_ != VK_NULL_HANDLE && bound_count_ >= count && same_ranges(bound_ranges_, dispatch.bindings, count))
    return bound_set_;
  KVANT_ASSIGN(const VkDescriptorSet set, sets_->take(next_ticket_, completed_));
  std::array<VkDescriptorBufferInfo, kMaxBindings> infos{};
  std::array<VkWriteDescriptorSet, kMaxBindings> writes{};
  // Also the bindings that the kernel does not declare are written: llvmpipe takes references to all buffers of a bound
  // set, used or not, and a recycled set would still name buffers that are long destroyed.
  for (std::uint32_t i = 0; i < kMaxBindings; ++i) {
    const BufferRange& range = i < count ? dispatch.bindings[i] : BufferRange{};
    if (is_absent(range)) {
      // Each absent binding gets bytes of its own: concurrent dispatches then do not even seem to share one.
      const Buffer& dummy = *buffers_->find(dummy_);
      const std::uint64_t slot = dummy.size / kDummySlots;
      infos[i] = {dummy.handle, dummy_slot_++ % kDummySlots * slot, slot};
    } else {
      infos[i] = {buffers_->find(range.buffer)->handle, range.offset, range.size};
    }
    writes[i].sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET;
    writes[i].dstSet = set;
    writes[i].dstBinding = i;
    writes[i].descriptorCount = 1;
    writes[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    writes[i].pBufferInfo = &infos[i];
  }
  device_.vk().vkUpdateDescriptorSets(device_.handle(), kMaxBindings, writes.data(), 0, nullptr);
  bound_set_ = set;
  bound_count_ = count;
  bound_ranges_ = dispatch.bindings;
  return set;
}

Status VulkanExecutor::record_command(Recorder& recorder, const Command& command, VkPipeline pipeline) {
  switch (command.type) {
    case Command::Type::dispatch: {
      const Dispatch& dispatch = command.dispatch;
      KVANT_ASSIGN(const VkDescriptorSet set, descriptor_set(dispatch));
      recorder.bind(pipeline);
      recorder.bind(set);
      recorder.push(std::span(dispatch.push).first(kernel_info(dispatch.kernel).push_bytes));
      recorder.dispatch(dispatch.groups);
      break;
    }
    case Command::Type::copy: {
      const Copy& copy = command.copy;
      recorder.copy(buffers_->find(copy.source)->handle, copy.source_offset, buffers_->find(copy.destination)->handle,
                    copy.destination_offset, copy.size);
      break;
    }
    case Command::Type::fill: {
      const BufferRange& range = command.fill.range;
      recorder.fill(buffers_->find(range.buffer)->handle, range.offset, range.size, command.fill.value);
      break;
    }
  }
  return {};
}

Status VulkanExecutor::record_list(Recorder& recorder, std::span<const Command> commands,
                                   std::span<const VkPipeline> pipelines, bool profile) {
  bound_set_ = VK_NULL_HANDLE;
  recorder.barrier();  // consecutive lists are ordered
  if (profile) KVANT_TRY(profiler_.begin(recorder, commands.size()));
  bool barrier_due = false;
  for (std::size_t i = 0; i < commands.size(); ++i) {
    barrier_due = barrier_due || (commands[i].barrier_before && i != 0);
    if (is_empty(commands[i])) continue;
    if (barrier_due) recorder.barrier();
    barrier_due = false;
    KVANT_TRY(record_command(recorder, commands[i], pipelines[i]));
    if (profile) profiler_.after_command(recorder, commands[i].label);
  }
  if (host_reads_) recorder.host_read_barrier();
  return {};
}

Status VulkanExecutor::submit_part(std::span<const Command> commands, std::span<const VkPipeline> pipelines,
                                   bool profile) {
  VkCommandBuffer buffer = VK_NULL_HANDLE;
  if (!commands.empty()) {
    KVANT_ASSIGN(buffer, commands_->begin(next_ticket_, completed_));
    Recorder recorder(device_, buffer, pipelines_->layout());
    const Status recorded = within_memory([&] { return record_list(recorder, commands, pipelines, profile); });
    const VkResult result =
        device_.note(device_.vk().vkEndCommandBuffer(buffer));  // also after an error: it is used again
    KVANT_TRY(recorded);
    if (result != VK_SUCCESS) return vk_status(result, "ending a command buffer");
  }
  return timeline_->submit(buffer, next_ticket_);
}

Result<Ticket> VulkanExecutor::submit(const CommandList& list) {
  if (device_.lost()) return device_.lost_status();
  poll();
  KVANT_TRY(resolve(list));
  KVANT_TRY(upload_->flush(next_ticket_));
  host_reads_ = shares_ || readback_->has_pieces(next_ticket_);
  if (!profiler_.uses_wall_times()) {
    Rollback undo([&] { profiler_.dropped(); });
    KVANT_TRY(submit_part(list.commands, resolved_, true));
    undo.complete();
    profiler_.submitted(next_ticket_);
    mark_used(list);
    return submitted();
  }
  // Without timestamps each command runs alone, between two readings of the clock. The list's ticket is that of the
  // last part.
  const std::span<const Command> commands(list.commands);
  for (std::size_t i = 0; i < commands.size(); ++i) {
    if (is_empty(commands[i])) continue;
    profiler_.expect(commands[i].label);
    const auto start = std::chrono::steady_clock::now();
    KVANT_TRY(submit_part(commands.subspan(i, 1), std::span(resolved_).subspan(i, 1), false));
    mark_used(list);
    KVANT_TRY(timeline_->wait(static_cast<std::uint64_t>(submitted())));
    const std::chrono::duration<double, std::micro> elapsed = std::chrono::steady_clock::now() - start;
    profiler_.add_wall_time(commands[i].label, elapsed.count());
    completed_ = timeline_->completed();
  }
  KVANT_TRY(submit_part({}, {}, false));
  return submitted();
}

Result<Ticket> VulkanExecutor::record(const CommandList& list, void* native_command_buffer) {
  if (device_.lost()) return device_.lost_status();
  poll();
  KVANT_TRY(resolve(list));
  KVANT_TRY(upload_->flush(next_ticket_));
  host_reads_ = shares_ || readback_->has_pieces(next_ticket_);
  Recorder recorder(device_, static_cast<VkCommandBuffer>(native_command_buffer), pipelines_->layout());
  KVANT_TRY(record_list(recorder, list.commands, resolved_, false));
  mark_used(list);
  recorded_ = true;
  return static_cast<Ticket>(next_ticket_);
}

Ticket VulkanExecutor::submitted() {
  recorded_ = false;
  return static_cast<Ticket>(next_ticket_++);
}

void VulkanExecutor::mark_used(const CommandList& list) {
  for (const Command& command : list.commands) {
    switch (command.type) {
      case Command::Type::dispatch:
        for (const BufferRange& range : command.dispatch.bindings) {
          if (range.buffer != BufferId::none) buffers_->mark_used(range.buffer, next_ticket_);
        }
        break;
      case Command::Type::copy:
        buffers_->mark_used(command.copy.source, next_ticket_);
        buffers_->mark_used(command.copy.destination, next_ticket_);
        break;
      case Command::Type::fill:
        buffers_->mark_used(command.fill.range.buffer, next_ticket_);
        break;
    }
  }
}

void VulkanExecutor::poll() {
  completed_ = timeline_->completed();
  buffers_->collect(completed_);
  profiler_.collect(completed_);
}

Status VulkanExecutor::wait(Ticket ticket) {
  const auto value = static_cast<std::uint64_t>(ticket);
  if (device_.lost()) return device_.lost_status();
  const bool recorded = recorded_ && value == next_ticket_;
  if (value >= next_ticket_ && !recorded)
    return {StatusCode::internal,
            "ticket " + std::to_string(value) + " was never given; the last is " + std::to_string(next_ticket_ - 1)};
  if (recorded) {
    // The engine has submitted it to our queue, so whatever we submit now completes after it.
    KVANT_TRY(timeline_->submit(VK_NULL_HANDLE, value));
    (void)submitted();
  }
  KVANT_TRY(timeline_->wait(value));
  poll();
  return readback_->waited(value);
}

Status VulkanExecutor::wait_all() {
  const std::uint64_t last = recorded_ ? next_ticket_ : next_ticket_ - 1;
  return last == 0 ? Status() : wait(static_cast<Ticket>(last));
}

std::vector<ProfileEntry> VulkanExecutor::take_profile() {
  if (!wait_all().ok()) return {};
  return profiler_.take();
}

}  // namespace kvant
