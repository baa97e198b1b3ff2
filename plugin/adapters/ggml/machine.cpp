#include "machine.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "buffers.hpp"
#include "ggml_log.hpp"
#include "operations.hpp"

namespace kvant::ggml {

namespace {

const Status kClosed{StatusCode::unavailable, "the device could not be opened"};

constexpr const char* kSetTensor = "set_tensor";

// Whether a copy may run beside those at the end of the list: inputs of a graph are set one after the other, each to a place of its own.
bool joins(const CommandList& list, const Copy& copy) {
  for (auto command = list.commands.rbegin(); command != list.commands.rend(); ++command) {
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

Result<BufferId> Machine::create_buffer(std::uint64_t size, BufferKind kind) {
  const std::lock_guard lock(mutex_);
  if (!open()) return kClosed;
  return context_->executor().create_buffer(size, kind);
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

// Copies gather with the commands of the next graph, so that a graph and its inputs are one submit.
Status Machine::write(BufferId buffer, std::uint64_t offset, const void* data, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  if (!open()) return kClosed;
  const auto* bytes = static_cast<const std::byte*>(data);
  for (std::uint64_t done = 0; done < size;) {
    const std::uint64_t piece = std::min<std::uint64_t>(size - done, context_->executor().limits().max_staging_bytes);
    KVANT_ASSIGN(const bool planar, work_->planar().reach(*work_, buffer, offset + done, piece));
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
}

Status Machine::read(BufferId buffer, std::uint64_t offset, void* data, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  if (!open()) return kClosed;
  for (std::uint64_t done = 0; done < size;) {
    const std::uint64_t piece = std::min<std::uint64_t>(size - done, context_->executor().limits().max_staging_bytes);
    KVANT_ASSIGN(const bool planar, work_->planar().reach(*work_, buffer, offset + done, piece));
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
  if (!work_->planar().whole(buffer, offset, size)) KVANT_TRY(work_->planar().settle(*work_, buffer, offset, size));
  work_->list().add_fill({{buffer, offset + begin, whole - end}, value * 0x01010101u}, "clear", true);
  return {};
}

Status Machine::copy(BufferId source, std::uint64_t source_offset, BufferId destination, std::uint64_t offset, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  if (!open()) return kClosed;
  if (!work_->planar().alike(source, source_offset, destination, offset, size)) {
    KVANT_TRY(work_->planar().settle(*work_, source, source_offset, size));
    KVANT_TRY(work_->planar().settle(*work_, destination, offset, size));
  }
  work_->list().add_copy({source, source_offset, destination, offset, size}, "cpy_tensor", true);
  return {};
}

Status Machine::compute(ggml_cgraph* graph) {
  const std::lock_guard lock(mutex_);
  if (!open()) return kClosed;
  bool shared = false;
  auto runs = [&](const ggml_tensor* node) { return !is_view_op(node->op) && (node->flags & GGML_TENSOR_FLAG_COMPUTE) != 0; };
  for (int i = 0; i < ggml_graph_n_nodes(graph); ++i)
    if (const ggml_tensor* node = ggml_graph_node(graph, i); runs(node)) {
      KVANT_TRY(prepare(*work_, node));
      shared = shared || is_shared(buffer_of(node));
      for (const ggml_tensor* source : node->src) shared = shared || (source != nullptr && is_shared(buffer_of(source)));
    }
  for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
    const ggml_tensor* node = ggml_graph_node(graph, i);
    if (!runs(node)) continue;
    if (Status status = record(*work_, node); !status.ok()) {
      // What gathered before is sound, and may be what other tensors were set to.
      if (const Status sent = work_->flush(); !sent.ok()) log_error(name_ + ": " + sent.message());
      return {status.code(), std::string(ggml_op_name(node->op)) + " '" + node->name + "': " + status.message()};
    }
  }
  return shared ? work_->finish() : work_->flush();
}

Status Machine::wait() {
  const std::lock_guard lock(mutex_);
  return work_ ? work_->finish() : Status();
}

}  // namespace kvant::ggml
