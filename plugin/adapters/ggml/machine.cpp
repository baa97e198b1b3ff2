#include "machine.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "buffers.hpp"
#include "ggml_log.hpp"
#include "operations.hpp"
#include "rollback.hpp"

namespace kvant::ggml {

namespace {

const Status kClosed{StatusCode::unavailable, "the device could not be opened"};

constexpr const char* kSetTensor = "set_tensor";

// Whether a copy may run beside those at the end of the list: inputs of a graph are set one after the other, each to a place of its own.
bool joins(const CommandList& list, const Copy& copy) {
  constexpr std::ptrdiff_t kMostCompared = 64;
  for (auto command = list.commands.rbegin(); command != list.commands.rend(); ++command) {
    if (command - list.commands.rbegin() == kMostCompared) return false;
    const Copy& other = command->copy;
    if (command->label != kSetTensor) return false;
    if (other.destination == copy.destination && other.destination_offset < copy.destination_offset + copy.size &&
        copy.destination_offset < other.destination_offset + other.size)
      return false;
    if (command->barrier_before) return true;
  }
  return false;
}

// KVANT_GGML_PLANAR: "never", "always"; else caches alone.
PlanarMode planar_mode() {
  const char* value = std::getenv("KVANT_GGML_PLANAR");
  const std::string_view mode = value != nullptr ? value : "";
  return mode == "never" ? PlanarMode::never : mode == "always" ? PlanarMode::always : PlanarMode::caches;
}

// A tensor of the node that the device does not reach. The matrix of a rotation is known without its numbers.
const ggml_tensor* outside(const ggml_tensor* node) {
  if (ggml_nelements(node) == 0) return nullptr;
  if (buffer_id(node) == BufferId::none) return node;
  for (int i = 0; i < GGML_MAX_SRC; ++i) {
    const ggml_tensor* source = node->src[i];
    const bool read = source != nullptr && ggml_nelements(source) > 0 && !(node->op == GGML_OP_MUL_MAT && i == 0);
    if (read && buffer_id(source) == BufferId::none) return source;
  }
  return nullptr;
}

// Where pipelines are kept between runs: the first use of a shape compiles.
std::string cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache != nullptr && *cache != 0) return std::string(cache) + "/kvant";
  return home != nullptr && *home != 0 ? std::string(home) + "/.cache/kvant" : std::string();
}

}  // namespace

Machine::Machine(Instance& instance, std::uint32_t index, std::uint32_t number) : instance_(instance), index_(index) {
  const DeviceSnapshot& snapshot = instance.devices()[index];
  name_ = "KVANT" + std::to_string(number);
  host_name_ = name_ + "_Host";
  description_ = snapshot.name + " (" + snapshot.driver_name + (snapshot.driver_info.empty() ? "" : " " + snapshot.driver_info) + ")";
  for (const MemoryHeap& heap : snapshot.heaps)
    if (heap.device_local) memory_total_ = std::max(memory_total_, heap.size);
}

bool Machine::open() {
  if (tried_) return context_ != nullptr;
  tried_ = true;
  DeviceOptions options;
  options.pipeline_cache_folder = cache_folder();
  std::error_code ignored;
  if (!options.pipeline_cache_folder.empty() && !std::filesystem::create_directories(options.pipeline_cache_folder, ignored) &&
      !std::filesystem::is_directory(options.pipeline_cache_folder, ignored))
    options.pipeline_cache_folder.clear();
  auto context = instance_.open(index_, options);
  if (!context.ok()) {
    log_error(name_ + ": " + context.status().message());
    return false;
  }
  context_ = std::move(context.value());
  work_ = std::make_unique<Work>(context_->executor(), planar_mode());
  return true;
}

std::uint64_t Machine::memory_held() {
  const std::lock_guard lock(mutex_);
  return context_ ? context_->device_bytes() : 0;
}

const ExecutorLimits* Machine::limits() {
  const std::lock_guard lock(mutex_);
  return open() ? &context_->executor().limits() : nullptr;
}

// Where host memory ends in the middle, what has gathered is not whole.
template <typename F>
Status Machine::guarded(F&& function) {
  bool whole = false;
  const Status status = within_memory([&] {
    const Status inner = function();
    whole = true;
    return inner;
  });
  if (!whole && work_) work_->give_up(status);
  return status;
}

Result<BufferId> Machine::create_buffer(std::uint64_t size, BufferKind kind) {
  const std::lock_guard lock(mutex_);
  BufferId buffer{};
  KVANT_TRY(within_memory([&]() -> Status {
    if (!open()) return kClosed;
    KVANT_ASSIGN(buffer, context_->executor().create_buffer(size, kind));
    return {};
  }));
  return buffer;
}

std::byte* Machine::mapped(BufferId buffer) {
  const std::lock_guard lock(mutex_);
  return context_ ? context_->executor().mapped(buffer) : nullptr;
}

void Machine::destroy_buffer(BufferId buffer) {
  const std::lock_guard lock(mutex_);
  if (!context_) return;
  if (const Status status = work_->flush(); !status.ok()) log_error(name_ + ": " + status.message());  // commands may name it
  work_->planar().forget(buffer);
  context_->executor().destroy_buffer(buffer);
}

std::uint64_t Machine::piece(BufferId buffer, std::uint64_t offset, std::uint64_t left) {
  const std::uint64_t most = std::min<std::uint64_t>(left, context_->executor().limits().max_staging_bytes);
  return work_->planar().touches(buffer, offset, most) ? std::min(most, kPieceBytes) : most;
}

// Copies gather with the commands of the next graph, so that a graph and its inputs are one submit. Where the device is idle and its memory is the
// processor's as well, none are needed.
Status Machine::write(BufferId buffer, std::uint64_t offset, const void* data, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  return guarded([&]() -> Status {
    if (!open()) return kClosed;
    const auto* bytes = static_cast<const std::byte*>(data);
    for (std::uint64_t done = 0; done < size;) {
      const std::uint64_t piece = this->piece(buffer, offset + done, size - done);
      KVANT_ASSIGN(const bool planar, work_->planar().reach(*work_, buffer, offset + done, piece));
      if (std::byte* memory = planar || !work_->idle() ? nullptr : work_->executor().mapped(buffer); memory != nullptr) {
        std::memcpy(memory + offset + done, bytes + done, piece);
        done += piece;
        continue;
      }
      KVANT_ASSIGN(const Staging staging, work_->stage(piece, BufferKind::upload));
      std::memcpy(staging.data, bytes + done, piece);
      if (planar) {
        KVANT_TRY(work_->planar().write(*work_, staging.range, buffer, offset + done));
        done += piece;
        continue;
      }
      const Copy copy{staging.range.buffer, staging.range.offset, buffer, offset + done, piece};
      work_->list().add_copy(copy, kSetTensor, !joins(work_->list(), copy));
      done += piece;
    }
    return {};
  });
}

Status Machine::read(BufferId buffer, std::uint64_t offset, void* data, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  return guarded([&]() -> Status {
    if (!open()) return kClosed;
    for (std::uint64_t done = 0; done < size;) {
      const std::uint64_t piece = this->piece(buffer, offset + done, size - done);
      KVANT_ASSIGN(const bool planar, work_->planar().reach(*work_, buffer, offset + done, piece));
      if (const std::byte* memory = planar ? nullptr : work_->executor().mapped(buffer); memory != nullptr) {
        KVANT_TRY(work_->finish());
        std::memcpy(static_cast<std::byte*>(data) + done, memory + offset + done, piece);
        done += piece;
        continue;
      }
      KVANT_ASSIGN(const Staging staging, work_->stage(piece, BufferKind::readback));
      if (planar)
        KVANT_TRY(work_->planar().read(*work_, buffer, offset + done, staging.range));
      else
        work_->list().add_copy({buffer, offset + done, staging.range.buffer, staging.range.offset, piece}, "get_tensor", true);
      KVANT_TRY(work_->finish());
      std::memcpy(static_cast<std::byte*>(data) + done, staging.data, piece);
      done += piece;
    }
    return {};
  });
}

Status Machine::fill(BufferId buffer, std::uint64_t offset, std::uint64_t size, std::uint8_t value) {
  const std::uint64_t begin = std::min(size, (4 - offset % 4) % 4), end = (offset + size) % 4, whole = size - begin;
  const std::byte edge[4] = {std::byte{value}, std::byte{value}, std::byte{value}, std::byte{value}};
  if (whole < 4) {
    KVANT_TRY(write(buffer, offset, edge, begin));
    return write(buffer, offset + begin, edge, whole);
  }
  KVANT_TRY(write(buffer, offset, edge, begin));
  KVANT_TRY(write(buffer, offset + size - end, edge, end));
  const std::lock_guard lock(mutex_);
  return guarded([&]() -> Status {
    if (!open()) return kClosed;
    if (!work_->planar().whole(buffer, offset, size)) KVANT_TRY(work_->planar().settle(*work_, buffer, offset, size));
    work_->list().add_fill({{buffer, offset + begin, whole - end}, value * 0x01010101u}, "clear", true);
    return {};
  });
}

Status Machine::copy(BufferId source, std::uint64_t source_offset, BufferId destination, std::uint64_t offset, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  return guarded([&]() -> Status {
    if (!open()) return kClosed;
    if (!work_->planar().alike(source, source_offset, destination, offset, size)) {
      KVANT_TRY(work_->planar().settle(*work_, source, source_offset, size));
      KVANT_TRY(work_->planar().settle(*work_, destination, offset, size));
    }
    work_->list().add_copy({source, source_offset, destination, offset, size}, "cpy_tensor", true);
    return {};
  });
}

Status Machine::place(BufferId buffer, std::uint64_t offset, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  return guarded([&] { return work_ ? work_->planar().release(*work_, buffer, offset, size) : Status(); });
}

Status Machine::compute(ggml_cgraph* graph) {
  const std::lock_guard lock(mutex_);
  if (!open()) return kClosed;
  if (!work_->broken().ok()) return work_->broken();
  bool shared = false;
  const Status status = guarded([&] { return run(graph, &shared); });
  // What gathered before an error is sound, and may be what other tensors were set to.
  const Status sent = shared ? work_->finish() : work_->flush();
  if (!status.ok() && !sent.ok()) log_error(name_ + ": " + sent.message());
  return status.ok() ? sent : status;
}

Status Machine::run(ggml_cgraph* graph, bool* shared) {
  const int count = ggml_graph_n_nodes(graph);
  // Libraries that know no such flag mark nothing.
  bool marked = false;
  for (int i = 0; i < count; ++i) marked = marked || (ggml_graph_node(graph, i)->flags & GGML_TENSOR_FLAG_COMPUTE) != 0;
  auto runs = [&](const ggml_tensor* node) { return !is_view_op(node->op) && (!marked || (node->flags & GGML_TENSOR_FLAG_COMPUTE) != 0); };
  auto failed = [](const ggml_tensor* node, const Status& status) {
    return Status(status.code(), std::string(ggml_op_name(node->op)) + " '" + node->name + "': " + status.message());
  };
  for (int i = 0; i < count; ++i) {
    const ggml_tensor* node = ggml_graph_node(graph, i);
    if (!runs(node)) continue;
    if (const ggml_tensor* stranger = outside(node); stranger != nullptr)
      return failed(node, {StatusCode::failed_precondition, std::string("'") + stranger->name + "' lies in no buffer of this device"});
    *shared = *shared || is_shared(buffer_of(node));
    for (const ggml_tensor* source : node->src) *shared = *shared || (source != nullptr && is_shared(buffer_of(source)));
    if (Status status = prepare(*work_, node); !status.ok()) return failed(node, status);
  }
  for (int i = 0; i < count; ++i) {
    const ggml_tensor* node = ggml_graph_node(graph, i);
    if (!runs(node)) continue;
    if (Status status = record(*work_, node); !status.ok()) return failed(node, status);
  }
  return {};
}

Status Machine::wait() {
  const std::lock_guard lock(mutex_);
  return work_ ? work_->finish() : Status();
}

}  // namespace kvant::ggml
