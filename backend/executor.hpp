// Executor: the one virtual interface of the core. The host layer plans command lists by pure code; an executor owns buffers
// and runs the lists. Implementations: VulkanExecutor (backend/) and the CPU reference in double (tests/reference/).
// Thread rule: one thread per executor at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernel_table.hpp"
#include "params/types.h"
#include "status.hpp"

namespace kvant {

// Opaque; 0 is no buffer. Never reused within an executor.
enum class BufferId : std::uint64_t { none = 0 };

enum class BufferKind : std::uint32_t {
  device,    // device-local, not mapped; contents undefined until written
  unified,   // as device; mapped where such memory is coherent and cached for the host: CPU drivers, some integrated GPUs
  upload,    // host writes, device reads
  readback,  // device writes, host reads (cached)
  shared,    // both read and write it in place, whenever the other does not; mapped, coherent and cached
};

struct BufferRange {
  BufferId buffer = BufferId::none;
  std::uint64_t offset = 0;  // bytes
  std::uint64_t size = 0;    // bytes
};

// Values of all specialization constants by id; a kernel takes those that it declares, the rest is ignored.
using SpecValues = std::array<std::uint32_t, KVANT_SPEC_COUNT>;

inline constexpr std::size_t kMaxBindings = 8;
inline constexpr std::size_t kMaxPushBytes = 128;

// One compute dispatch. Bindings beyond the kernel's count are ignored; a BufferId::none binding is given a dummy buffer.
struct Dispatch {
  KernelId kernel{};
  SpecValues spec{};
  std::array<std::byte, kMaxPushBytes> push{};
  std::array<BufferRange, kMaxBindings> bindings{};
  std::array<std::uint32_t, 3> groups{1, 1, 1};
};

struct Copy {
  BufferId source{};
  std::uint64_t source_offset = 0;
  BufferId destination{};
  std::uint64_t destination_offset = 0;
  std::uint64_t size = 0;
};

struct Fill {
  BufferRange range;         // offset and size multiples of 4
  std::uint32_t value = 0;
};

// A command is one of the three; `barrier_before` orders all of its reads and writes after every earlier command of the list.
// Commands without it may run in any order or at once. Consecutive lists submitted to one executor are ordered.
struct Command {
  enum class Type : std::uint8_t { dispatch, copy, fill } type = Type::dispatch;
  bool barrier_before = false;
  Dispatch dispatch;
  Copy copy;
  Fill fill;
  const char* label = "";    // static string, shown by the profiler
};

struct CommandList {
  std::vector<Command> commands;

  void clear() { commands.clear(); }  // keeps capacity: a step in steady state allocates nothing
  Dispatch& add_dispatch(KernelId kernel, const char* label, bool barrier_before);
  void add_copy(const Copy& copy, const char* label, bool barrier_before);
  void add_fill(const Fill& fill, const char* label, bool barrier_before);
};

// Completion of one submit, and of the lists recorded between the last one and it. Tickets of one executor complete in order.
enum class Ticket : std::uint64_t { none = 0 };

// A piece of the staging ring: mapped memory that the device reads or writes. Valid until the ticket of the next submit
// (which is taken to use it) has completed; then the ring takes it back. Alignment 256 bytes.
struct Staging {
  BufferRange range;
  std::byte* data = nullptr;
};

// What the host layer must know of the device. Filled once at creation.
struct ExecutorLimits {
  std::uint64_t max_slab_bytes = 0;         // most bytes of one buffer
  std::uint64_t max_device_bytes = 0;       // most bytes of all buffers: the caller's limit or the memory there is; 0 = unknown
  std::uint64_t max_binding_bytes = 0;      // most bytes of one binding (maxStorageBufferRange)
  std::uint32_t binding_alignment = 16;     // offsets of bindings, at least 16
  std::uint32_t max_groups[3] = {65535, 65535, 65535};
  std::uint32_t max_staging_bytes = 0;      // most bytes of one stage() call
  std::uint64_t max_shared_bytes = 0;       // most bytes of one shared buffer; 0 = the device has no such memory
  std::uint32_t run_tokens = 32;            // rows of a head that had better lie one after the other, where a caller may choose how large pages are
  std::uint32_t parallel_workgroups = 1;    // about as many workgroups as keep the device busy
};

// Shape of an attention call, the input of tuning.
struct AttendShape {
  std::uint32_t format_k = 0, format_v = 0;
  std::uint32_t head_dim_k = 0, head_dim_v = 0;
  std::uint32_t group = 1;                  // query heads per KV head
  std::uint32_t kv_heads = 1;
  std::uint32_t max_queries = 1;            // longest query run of a sequence in the batch
  std::uint32_t total_queries = 1;
  std::uint64_t max_kv_len = 0, total_kv_len = 0;
  std::uint32_t page_tokens = 16;
  bool scored = false;                      // attention mass is counted over the same items, by the kernel score
};

// How to run that call: the kernel, how the planner cuts the work, and the kernel's tuning constants.
struct AttendConfig {
  KernelId kernel{};
  std::uint32_t local_size = 64;
  std::uint32_t heads_per_tile = 1;         // <= group
  std::uint32_t queries_per_item = 1;
  std::uint32_t kv_per_item = 256;          // multiple of page_tokens: hard limit of the kernel; 0 = none
  std::uint32_t kv_split = 256;             // multiple of page_tokens, <= kv_per_item: length the planner aims at
  std::uint32_t subgroup_size = 0;
  std::array<std::uint32_t, 4> tune{};      // KVANT_SPEC_TUNE0..3

  bool operator==(const AttendConfig&) const = default;
};

// Workgroup size of append, read, copy, convert and merge.
struct PageKernelConfig {
  std::uint32_t local_size = 64;
};

class Executor {
 public:
  virtual ~Executor() = default;

  virtual const ExecutorLimits& limits() const = 0;
  virtual AttendConfig attend_config(const AttendShape& shape) const = 0;
  virtual PageKernelConfig page_kernel_config(KernelId kernel) const = 0;

  // Errors: resource_exhausted when memory is out, naming size and heap; unimplemented where the device has no memory of a kind (shared);
  // data_loss when the device is lost.
  virtual Result<BufferId> create_buffer(std::uint64_t size, BufferKind kind) = 0;
  // Safe while the device still uses it: destruction waits for the last submit that named it. none is ignored.
  virtual void destroy_buffer(BufferId buffer) = 0;
  // Where the host sees a shared or unified buffer, for use whenever the device does not; null for every other, and for a unified one that is not mapped.
  virtual std::byte* mapped(BufferId buffer) const = 0;
  // Wraps the engine's VkBuffer (its handle as an integer); not owned. unimplemented on the CPU.
  virtual Result<BufferId> import_buffer(std::uint64_t native_handle, std::uint64_t size) = 0;

  // `kind` is upload or readback. Errors: invalid_argument above limits().max_staging_bytes.
  virtual Result<Staging> stage(std::uint64_t size, BufferKind kind) = 0;

  virtual Result<Ticket> submit(const CommandList& list) = 0;
  // Records into the engine's VkCommandBuffer instead of submitting. unimplemented on the CPU.
  virtual Result<Ticket> record(const CommandList& list, void* native_command_buffer) = 0;
  // Host waits; after it, readback staging of that submit may be read.
  virtual Status wait(Ticket ticket) = 0;
};

}  // namespace kvant
