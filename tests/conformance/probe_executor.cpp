#include "probe_executor.hpp"

namespace kvant::conformance {

AttendConfig ProbeExecutor::attend_config(const AttendShape& shape) const {
  return config_ ? *config_ : inner_.attend_config(shape);
}

Result<BufferId> ProbeExecutor::create_buffer(std::uint64_t size, BufferKind kind) {
  KVANT_ASSIGN(const BufferId id, inner_.create_buffer(size, kind));
  if (kind != BufferKind::device) return id;
  device_buffers_.push_back(id);
  CommandList list;
  list.add_fill(Fill{BufferRange{id, 0, size / 4 * 4}, 0xFFFFFFFFu}, "poison", true);
  KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, inner_.submit(list));
  return id;
}

Result<Ticket> ProbeExecutor::submit(const CommandList& list) {
  for (const Command& command : list.commands) {
    if (command.type != Command::Type::dispatch) continue;
    ++dispatches_;
    const std::string_view name = kernel_info(command.dispatch.kernel).name;
    const bool attend = name.starts_with("attend_") && command.dispatch.kernel != KernelId::attend_merge;
    if (attend || !last_is_attend_) last_ = command.dispatch;
    last_is_attend_ = last_is_attend_ || attend;
  }
  if (!tamper_) return inner_.submit(list);
  CommandList changed = list;
  tamper_(changed);
  return inner_.submit(changed);
}

}  // namespace kvant::conformance
