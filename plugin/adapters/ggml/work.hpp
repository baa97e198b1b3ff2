// Work: the commands of a graph as they gather, what they upload, and the scratch memory that they share.
#pragma once

#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "append_record.hpp"
#include "executor.hpp"
#include "planar.hpp"
#include "planner.hpp"
#include "tensors.hpp"

namespace kvant::ggml {

// Scratch buffers: they grow, and every operation may overwrite them after a barrier.
enum class Scratch : std::uint32_t { keys, values, partial, heads, rows, count };

// A part of a buffer that can be bound, and how many bytes behind its beginning the wanted one lies.
struct Window {
  BufferRange range;
  std::uint32_t skipped = 0;
};

// How large a tensor may be that is bound whole, wherever it begins.
inline std::uint64_t bindable_bytes(const ExecutorLimits& limits) { return limits.max_binding_bytes - limits.binding_alignment - 4; }

// Strides of rows, matrices and more, in bytes, into the parameters of a kernel over strided tensors (params/strided.h).
template <typename Params>
void set_strides(Params& p, const ggml_tensor* source, const ggml_tensor* destination) {
  p.src_nb1 = u32(source->nb[1]);
  p.src_nb2 = u32(source->nb[2]);
  p.src_nb3 = u32(source->nb[3]);
  p.dst_nb1 = u32(destination->nb[1]);
  p.dst_nb2 = u32(destination->nb[2]);
  p.dst_nb3 = u32(destination->nb[3]);
}

class Work {
 public:
  Work(Executor& executor, PlanarMode mode) : executor_(executor), planar_(mode) {}
  ~Work();
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  Executor& executor() { return executor_; }
  CommandList& list() { return list_; }
  AttendPlanner& planner() { return planner_; }
  PlanarTensors& planar() { return planar_; }

  // Submits what has gathered. Where that fails, what tensors hold is not known any more, and everything fails from then on.
  Status flush();
  // Why nothing works any more, or ok.
  const Status& broken() const { return broken_; }
  void give_up(const Status& why) { broken_ = why; }
  // Waits for all that was submitted; flushes before.
  Status finish();
  // Whether nothing has gathered, and all that was submitted was waited for.
  bool idle() const { return broken_.ok() && list_.commands.empty() && waited_; }
  // Mapped memory for commands that are recorded before anything else is submitted or staged. Submits first when much has gathered, and waits
  // when the ring is full.
  Result<Staging> stage(std::uint64_t bytes, BufferKind kind);
  // Words for such commands.
  Result<BufferRange> upload(std::span<const std::uint32_t> words);
  // A dispatch of a kernel with its parameters; spec, bindings and groups are the caller's. Valid until the next command.
  template <typename Params>
  Dispatch& add(KernelId kernel, const char* name, const Params& params, bool barrier) {
    Dispatch& dispatch = list_.add_dispatch(kernel, name, barrier);
    static_assert(sizeof(Params) <= sizeof(dispatch.push));
    std::memcpy(dispatch.push.data(), &params, sizeof params);
    return dispatch;
  }
  // An append of one side, with nothing recorded since, which one of the other side may join; else null.
  const AppendCall* lone_append() const { return lone_append_end_ == list_.commands.size() && lone_append_end_ != 0 ? &lone_append_ : nullptr; }
  void note_lone_append(const AppendCall& call) {
    lone_append_ = call;
    lone_append_end_ = list_.commands.size();
  }
  // A buffer of at least `bytes`.
  Result<BufferRange> scratch(Scratch which, std::uint64_t bytes);

  Window window(BufferId buffer, std::uint64_t offset, std::uint64_t bytes) const;
  // The whole of a tensor.
  Window window(const ggml_tensor* tensor) const;

 private:
  struct Buffer {
    BufferId id = BufferId::none;
    std::uint64_t size = 0;
  };

  Executor& executor_;
  CommandList list_;
  AttendPlanner planner_;
  PlanarTensors planar_;
  Ticket last_ = Ticket::none;
  bool waited_ = true;        // for last_, or there is none
  Status broken_;
  std::uint64_t staged_ = 0;  // bytes since the last submit
  AppendCall lone_append_;
  std::size_t lone_append_end_ = 0;  // commands when it had been recorded; 0: there is none
  std::array<Buffer, static_cast<std::size_t>(Scratch::count)> scratch_;
};

}  // namespace kvant::ggml
